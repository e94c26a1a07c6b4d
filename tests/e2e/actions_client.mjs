// What an action does with the npm package `@actions/cache`: acts and their results are JSON on standard
// input and in the file that the second argument names. The first argument is where the package is installed.
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , place, results] = process.argv;
const part = (name) => import(pathToFileURL(`${place}/node_modules/@actions/cache/lib/${name}.js`));
const cache = await part("cache");

const acts = {
  available: async () => cache.isFeatureAvailable(),
  save: async ({ paths, key }) => cache.saveCache(paths, key),
  restore: async ({ paths, key, prefixes }) => (await cache.restoreCache(paths, key, prefixes)) ?? null,
  remove: ({ path }) => rmSync(path, { recursive: true, force: true }) ?? null,
  read: ({ file }) => (existsSync(file) ? readFileSync(file, "utf8") : null),
  // The same under any version of an object, by the package's own requests.
  find: async ({ key, version, prefixes, file }) => {
    const { internalCacheTwirpClient } = await part("internal/shared/cacheTwirpClient");
    const asked = { key, version, restoreKeys: prefixes };
    const { ok, matchedKey, signedDownloadUrl } = await internalCacheTwirpClient().GetCacheEntryDownloadURL(asked);
    if (!ok) return null;
    const { downloadCache } = await part("internal/cacheHttpClient");
    await downloadCache(signedDownloadUrl, file);
    return matchedKey;
  },
};

const done = [];
for (const { act, ...what } of JSON.parse(readFileSync(0, "utf8"))) done.push(await acts[act](what));
writeFileSync(results, JSON.stringify(done));

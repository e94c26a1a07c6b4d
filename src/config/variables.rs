//! The table of the environment variables that the program reads.
//!
//! [`super::env`] reads them; `docs/reference/environment.md` is made of the table.

use super::platforms::PLATFORMS;

/// One environment variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it does, as Markdown.
    pub meaning: &'static str,
    /// What holds if it is not set, as Markdown.
    pub default: &'static str,
    /// Whether its value must not be shown.
    pub secret: bool,
}

pub(super) const fn variable(
    name: &'static str,
    meaning: &'static str,
    default: &'static str,
) -> Variable {
    Variable {
        name,
        meaning,
        default,
        secret: false,
    }
}

const fn proxy(name: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        meaning,
        default: "no proxy",
        // A proxy's URL may hold a password.
        secret: true,
    }
}

const fn secret_variable(
    name: &'static str,
    meaning: &'static str,
    default: &'static str,
) -> Variable {
    Variable {
        name,
        meaning,
        default,
        secret: true,
    }
}

/// A variable by which the runner of Actions describes its cache service.
const fn service(name: &'static str, meaning: &'static str) -> Variable {
    variable(name, meaning, "only in jobs of Actions")
}

/// A variable by which tools of a storage service are told something.
const fn storage(name: &'static str, meaning: &'static str) -> Variable {
    variable(name, meaning, "none")
}

/// Every variable that the program reads. An empty value counts as not set.
pub const VARIABLES: &[Variable] = &ALL;

const ALL: [Variable; OWN.len() + PLATFORMS.len()] = {
    let mut all = [OWN[0]; OWN.len() + PLATFORMS.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = match at < OWN.len() {
            true => OWN[at],
            false => PLATFORMS[at - OWN.len()],
        };
        at += 1;
    }
    all
};

/// Those that are about the program, its machine and its services.
const OWN: &[Variable] = &[
    variable(
        "MEMOBUILD_CACHE_DIR",
        "directory of the local cache",
        "`cache.dir` of `memobuild.yml`, else `$XDG_CACHE_HOME/memobuild-ci`, else `$HOME/.cache/memobuild-ci`, else `/var/cache/memobuild-ci`",
    ),
    variable(
        "MEMOBUILD_OUTPUT",
        "directory for images that `-o` names no place for, `<name>-<tag>` each",
        "`.memobuild-output`",
    ),
    variable(
        "MEMOBUILD_REMOTE_URL",
        "remote caches: addresses such as `https://cache.example` or `oci://registry.example/team/cache`, divided by white space, the first asked first",
        "`cache.remote` of `memobuild.yml`, else none",
    ),
    secret_variable(
        "MEMOBUILD_TOKEN",
        "the token for a cache server of this program",
        "no token",
    ),
    variable(
        "MEMOBUILD_CACHE_SCOPE",
        "the trust scope that the build writes under: `protected`, `branch/<name>`, `pull/<number>` or `local`",
        "`cache.scope` of `memobuild.yml`, else what the CI platform says about the build",
    ),
    variable(
        "MEMOBUILD_CACHE_MOUNTS",
        "whether remote caches keep the directories of cache mounts: `on`, `off`, or the size of the largest one to keep, such as `2GB`",
        "`cache.mounts` of `memobuild.yml`, else `off`",
    ),
    secret_variable(
        "MEMOBUILD_SIGNING_KEY",
        "the private key that signs what the build saves: Ed25519, PKCS#8, PEM, or the path of a file with it",
        "`cache.sign` of `memobuild.yml`, else nothing is signed",
    ),
    variable(
        "MEMOBUILD_TRUSTED_KEYS",
        "public keys whose signatures count: PEM, or paths and base64 divided by white space; besides `cache.trust.keys` of `memobuild.yml`",
        "none",
    ),
    variable(
        "MEMOBUILD_CDI_DIRS",
        "directories with descriptions of devices for `RUN --device`, divided by `:`",
        "`/etc/cdi:/var/run/cdi`",
    ),
    variable(
        "MEMOBUILD_LOG",
        "what the program logs about its own work on stderr: a level (`error`, `warn`, `info`, `debug`, `trace`) or a list of `module=level`",
        "`warn`",
    ),
    variable(
        "SOURCE_DATE_EPOCH",
        "seconds since 1970 that times in the image are clamped to; steps see it too",
        "`build.source-date-epoch` of `memobuild.yml`, else the time of the base image",
    ),
    variable(
        "DOCKER_CONFIG",
        "directory of Docker's `config.json`, which holds registry credentials and names credential helpers",
        "`$HOME/.docker`",
    ),
    variable("HOME", "home directory, for the defaults above", "none"),
    variable(
        "XDG_CACHE_HOME",
        "directory for caches, for the default above; must be absolute",
        "`$HOME/.cache`",
    ),
    variable(
        "XDG_CONFIG_HOME",
        "directory for configuration; handed to `git`",
        "`$HOME/.config`",
    ),
    variable(
        "GIT_CONFIG_GLOBAL",
        "configuration that `git` takes credentials and addresses from, for Git contexts and `ADD` of repositories",
        "`$HOME/.gitconfig`",
    ),
    variable(
        "GIT_SSH_COMMAND",
        "how `git` calls `ssh`",
        "`ssh -o BatchMode=yes`",
    ),
    variable(
        "GIT_ASKPASS",
        "the program that `git` asks for credentials",
        "none",
    ),
    variable(
        "TMPDIR",
        "directory for temporary files outside of the cache",
        "`/tmp`",
    ),
    variable(
        "PATH",
        "where credential helpers, `newuidmap` and `newgidmap` are looked for; steps get the image's `PATH`, not this one",
        "the system's",
    ),
    variable(
        "NO_COLOR",
        "no colour, unless `--color=always` asks for it ([no-color.org](https://no-color.org))",
        "colour on a terminal",
    ),
    variable(
        "CLICOLOR_FORCE",
        "colour also where stderr is no terminal, unless it is `0`",
        "colour on a terminal",
    ),
    variable(
        "TERM",
        "the kind of terminal; `dumb` means neither colour nor progress bars",
        "none",
    ),
    variable(
        "CI",
        "set to anything but `false` or `0`: plain progress lines also on a terminal",
        "bars on a terminal",
    ),
    proxy(
        "HTTP_PROXY",
        "proxy for `http` URLs; predefined build argument",
    ),
    proxy("http_proxy", "as `HTTP_PROXY`, and goes before it"),
    proxy(
        "HTTPS_PROXY",
        "proxy for `https` URLs; predefined build argument",
    ),
    proxy("https_proxy", "as `HTTPS_PROXY`, and goes before it"),
    proxy(
        "ALL_PROXY",
        "proxy for URLs without their own; predefined build argument",
    ),
    proxy("all_proxy", "as `ALL_PROXY`, and goes before it"),
    proxy(
        "FTP_PROXY",
        "only handed to steps, as predefined build argument",
    ),
    proxy("ftp_proxy", "as `FTP_PROXY`"),
    proxy(
        "NO_PROXY",
        "hosts that are reached without proxy; predefined build argument",
    ),
    proxy("no_proxy", "as `NO_PROXY`, and goes before it"),
    variable(
        "MEMOBUILD_CA_CERTIFICATES",
        "PEM files, divided by `:`, with certificate authorities to trust besides the system's: for remote caches, registries and URLs; besides `cache.ca-certificates` of `memobuild.yml`",
        "none",
    ),
    variable(
        "SSL_CERT_FILE",
        "PEM file with the certificate authorities of the host in place of the system's, for all connections and for `--ca-certificates host`",
        "the system's bundle, such as `/etc/ssl/certs/ca-certificates.crt`",
    ),
    variable(
        "SSL_CERT_DIR",
        "directory with certificate authorities of the host",
        "none",
    ),
    variable(
        "SSH_AUTH_SOCK",
        "socket of the SSH agent that `--ssh default` gives to steps, and that `git` asks for keys",
        "no agent",
    ),
    service(
        "ACTIONS_CACHE_SERVICE_V2",
        "whether the cache service speaks version 2",
    ),
    service(
        "ACTIONS_CACHE_URL",
        "address of the cache service, version 1",
    ),
    service(
        "ACTIONS_RESULTS_URL",
        "address of the cache service, version 2",
    ),
    service(
        "ACTIONS_CACHE_MODE",
        "what the job may do with the cache service",
    ),
    secret_variable(
        "ACTIONS_RUNTIME_TOKEN",
        "the token for the cache service of `gha://`",
        "no access",
    ),
    storage(
        "AWS_REGION",
        "region of the bucket of `s3://`, where the address names none",
    ),
    storage(
        "AWS_DEFAULT_REGION",
        "as `AWS_REGION`, which goes before it",
    ),
    variable(
        "AWS_ENDPOINT_URL_S3",
        "address of the service of `s3://`, where the cache's address names none",
        "that of AWS in the region",
    ),
    storage(
        "AWS_ENDPOINT_URL",
        "as `AWS_ENDPOINT_URL_S3`, which goes before it",
    ),
    storage("AWS_ACCESS_KEY_ID", "access key for `s3://`"),
    secret_variable("AWS_SECRET_ACCESS_KEY", "its secret half", "none"),
    secret_variable(
        "AWS_SESSION_TOKEN",
        "its session token, where it is a temporary one",
        "none",
    ),
    variable(
        "AWS_PROFILE",
        "which profile of AWS's files to take credentials for `s3://` from",
        "`default`",
    ),
    variable(
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS's file of credentials",
        "`$HOME/.aws/credentials`",
    ),
    variable(
        "AWS_CONFIG_FILE",
        "AWS's file of profiles",
        "`$HOME/.aws/config`",
    ),
    storage(
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "file with a token of the CI platform, exchanged for credentials for `s3://`",
    ),
    storage("AWS_ROLE_ARN", "the role that the token is exchanged for"),
    storage("AWS_ROLE_SESSION_NAME", "name of that session"),
    storage(
        "AWS_STS_REGIONAL_ENDPOINTS",
        "`regional`: exchange it in the region",
    ),
    storage(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "where a container asks for credentials for `s3://`",
    ),
    storage(
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "the same, as a path",
    ),
    secret_variable(
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "what it proves itself with there",
        "none",
    ),
    storage(
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "file with what it proves itself with there",
    ),
    variable(
        "AWS_EC2_METADATA_DISABLED",
        "`true`: don't ask the machine's metadata service for credentials for `s3://`",
        "it is asked last",
    ),
    variable(
        "GOOGLE_APPLICATION_CREDENTIALS",
        "file with credentials for `gs://`",
        "`$XDG_CONFIG_HOME/gcloud/application_default_credentials.json`, else the machine's metadata service",
    ),
    variable(
        "GCE_METADATA_HOST",
        "host of Google's metadata service",
        "`metadata.google.internal`",
    ),
    storage(
        "AZURE_STORAGE_ACCOUNT",
        "account of `azblob://`, where the address names none",
    ),
    secret_variable("AZURE_STORAGE_KEY", "the account's key", "none"),
    secret_variable(
        "AZURE_STORAGE_SAS_TOKEN",
        "shared access signature for `azblob://`",
        "none",
    ),
    storage(
        "AZURE_TENANT_ID",
        "tenant of the application that reaches `azblob://`",
    ),
    storage("AZURE_CLIENT_ID", "its id"),
    secret_variable("AZURE_CLIENT_SECRET", "its secret", "none"),
    storage(
        "AZURE_FEDERATED_TOKEN_FILE",
        "file with a token of the CI platform, in place of the secret",
    ),
    variable(
        "AZURE_AUTHORITY_HOST",
        "where tokens are exchanged",
        "`https://login.microsoftonline.com`",
    ),
];

/// The variables that remote caches are opened with: addresses and credentials of storage services.
pub(super) const SERVICES: &[&str] = &[
    "ACTIONS_CACHE_SERVICE_V2",
    "ACTIONS_CACHE_URL",
    "ACTIONS_RESULTS_URL",
    "ACTIONS_CACHE_MODE",
    "ACTIONS_RUNTIME_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GCE_METADATA_HOST",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    // Files of credentials lie below these.
    "HOME",
    "XDG_CONFIG_HOME",
];

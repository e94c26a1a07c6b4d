#!/bin/bash
# The composite action's one step: runs `memobuild-ci build` with the action's inputs (INPUT_*).
set -euo pipefail

binary=$(realpath -- "$INPUT_BINARY")
cd -- "$INPUT_DIRECTORY"
command=("$binary" build --progress plain)
if [ -n "$INPUT_CACHE_DIR" ]; then command+=(--cache-dir "$INPUT_CACHE_DIR"); fi
# Splits as a shell does, but expands nothing.
while IFS= read -r -d '' word; do command+=("$word"); done < <(xargs printf '%s\0' <<< "$INPUT_ARGUMENTS")
if [ -z "${INPUT_ARGUMENTS// /}" ]; then unset 'command[-1]'; fi
if [ "$INPUT_SUDO" = true ]; then
    sudo --preserve-env "${command[@]}"
    sudo chown -R "$(id -u):$(id -g)" "${MEMOBUILD_OUTPUT:-.memobuild-output}"
else
    "${command[@]}"
fi
echo "output-directory=$(realpath -m "${MEMOBUILD_OUTPUT:-.memobuild-output}")" >> "$GITHUB_OUTPUT"

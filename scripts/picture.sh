#!/usr/bin/env bash
# Makes docs/picture.png, the picture of the README.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --quiet -p dinov3-cli
scene=samples/aerial-harbour.png
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
features() {
    "${CARGO_TARGET_DIR:-target}/release/dinov3" features "$scene" -m vit_small_patch16_dinov3 --weights synthetic:7 \
        --preprocess native "$@"
}
features --pca "$folder/pca.png"
features --similarity 120,260 -o "$folder/similarity.png"
cargo xtask montage docs/picture.png "$scene" "$folder/pca.png" "$folder/similarity.png"

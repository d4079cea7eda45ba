#!/usr/bin/env bash
# From a scene to a map of similar places, offline: the sample scene is drawn here, and synthetic weights know shapes and
# colours, not meaning. With your own: SCENE=scene.tif MODEL=vit_large_patch16_dinov3.sat493m WEIGHTS= scripts/demo-scene.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# A program that is there already: DINOV3=target/debug/dinov3 scripts/demo-scene.sh
dinov3=${DINOV3:-}
if [ -z "$dinov3" ]; then
    scripts/setup.sh
    cargo build --release --quiet -p dinov3-cli
    dinov3=${CARGO_TARGET_DIR:-target}/release/dinov3
fi
mkdir -p out
scene=${SCENE:-out/sample-scene-rgb.tif}
if [ "$scene" = out/sample-scene-rgb.tif ] && [ ! -f "$scene" ]; then cargo xtask sample-scene out; fi
model=(-m "${MODEL:-vit_small_patch16_dinov3}" --precision auto)
weights=${WEIGHTS-synthetic:7}
if [ -n "$weights" ]; then model+=(--weights "$weights"); fi

"$dinov3" scene info "$scene"
"$dinov3" scene embed "$scene" "${model[@]}" --chip 128 --stride 64 -o out/chips.parquet
"$dinov3" scene map out/chips.html --embeddings out/chips.parquet
"$dinov3" scene map out/patches.html "$scene" "${model[@]}"
echo "Open out/chips.html and out/patches.html in a browser."

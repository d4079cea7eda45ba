#!/usr/bin/env bash
# The main job on the repository's own pictures, offline: embeddings, feature maps and pictures of them.
# With real weights: MODEL=vit_large_patch16_dinov3 WEIGHTS=model.safetensors scripts/demo.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh
cargo build --release --quiet -p dinov3-cli
dinov3=${CARGO_TARGET_DIR:-target}/release/dinov3
model=${MODEL:-vit_small_patch16_dinov3}
weights=${WEIGHTS:-synthetic:7}
mkdir -p out

"$dinov3" embed samples -m "$model" --weights "$weights" --pool avg,token -o out/embeddings.parquet
"$dinov3" embed samples -m "$model" --weights "$weights" -o out/embeddings.npy
"$dinov3" features samples/aerial-fields.png -m "$model" --weights "$weights" --preprocess native \
    --pca out/aerial-fields-pca.png -o out/aerial-fields.safetensors
echo "Embeddings are in out/embeddings.parquet and out/embeddings.npy, feature maps in out/aerial-fields.safetensors,"
echo "a picture of them in out/aerial-fields-pca.png."
if [ "$weights" = synthetic:7 ]; then
    echo "These used synthetic weights: exact arithmetic, no knowledge. For real ones, which are downloaded:"
    echo "WEIGHTS=hf-hub:timm/vit_small_patch16_dinov3.lvd1689m scripts/demo.sh"
fi

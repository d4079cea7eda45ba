"""The script that a user of timm writes for a folder: Pillow, timm's transform, torch's DataLoader, batches, one file.

    timm_loader.py MODEL PRECISION BATCH THREADS LIST OUTPUT.npy WORKERS

Prints images per second from the first file to the last embedding, the model already made and warm.
"""

import json
import sys
import time
from pathlib import Path

import numpy
import timm
import torch
from PIL import Image

from peers import Case, timm_model


class Pictures(torch.utils.data.Dataset):
    def __init__(self, files: list[str], transform):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


@torch.inference_mode()
def main() -> None:
    name, precision, batch, threads, listed, output, workers = sys.argv[1:]
    batch, workers = int(batch), int(workers)
    torch.set_num_threads(int(threads))
    dtype = torch.float32 if precision == "f32" else torch.bfloat16
    model = timm_model(Case(name, precision, batch, 256, 256, int(threads), ""), dtype)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    files = Path(listed).read_text().split()
    loader = torch.utils.data.DataLoader(Pictures(files, transform), batch_size=batch, num_workers=workers)
    model(torch.zeros(batch, 3, 256, 256, dtype=dtype))
    started = time.perf_counter()
    rows = torch.cat([model(images.to(dtype)).float() for images in loader])
    numpy.save(output, rows.numpy())
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "images_per_second": len(files) / seconds}))


if __name__ == "__main__":
    main()

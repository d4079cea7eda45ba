"""The shortest script of a peer's user: from a picture to an embedding in a file. Run as a whole process.

    first_embedding.py prepare MODEL WEIGHTS.safetensors
    first_embedding.py timm|onnxruntime MODEL WEIGHTS|MODEL.onnx PICTURE OUTPUT.npy THREADS
"""

import sys


def timm_script(model: str, weights: str, picture: str, output: str, threads: int) -> None:
    import numpy
    import timm
    import torch
    from PIL import Image

    torch.set_num_threads(threads)
    net = timm.create_model(model, checkpoint_path=weights, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
    with torch.inference_mode():
        numpy.save(output, net(transform(Image.open(picture).convert("RGB")).unsqueeze(0)).numpy())


def onnxruntime_script(_model: str, onnx: str, picture: str, output: str, threads: int) -> None:
    import numpy
    import onnxruntime
    from PIL import Image

    image = Image.open(picture).convert("RGB").resize((256, 256), Image.Resampling.BICUBIC)
    unit = numpy.asarray(image, numpy.float32) / numpy.float32(255)
    pixels = (unit - numpy.float32([0.485, 0.456, 0.406])) / numpy.float32([0.229, 0.224, 0.225])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: numpy.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}
    numpy.save(output, session.run(None, inputs)[0])


def prepare(model: str, weights: str) -> None:
    """Synthetic weights as a checkpoint of timm's."""
    from safetensors.torch import save_file

    from peers import Case, timm_model

    save_file(dict(timm_model(Case(model, "f32", 1, 256, 256, 1, "")).named_parameters()), weights)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare", model, weights]:
            prepare(model, weights)
        case ["timm", *rest, threads]:
            timm_script(*rest, int(threads))
        case ["onnxruntime", *rest, threads]:
            onnxruntime_script(*rest, int(threads))
        case _:
            sys.exit(__doc__)

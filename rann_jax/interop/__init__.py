"""Weights from and to PyTorch: published PANNs checkpoints, and RANNs under this project's own names.

    variables, skipped = interop.load_torch("Cnn14_mAP=0.431.pth", "cnn14")
    logits = models.create("cnn14", num_classes=527).apply(variables, images)
    interop.save_torch("cnn14.pth", variables, "cnn14")

Reading or writing `.pth` needs torch, `.safetensors` needs safetensors; both are imported only then.
"""

from rann_jax.interop.convert import Loaded, from_state_dict, load_torch, save_torch, to_state_dict

__all__ = ["Loaded", "from_state_dict", "load_torch", "save_torch", "to_state_dict"]

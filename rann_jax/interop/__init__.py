"""Conversion of weights from and to PyTorch: published files of PANNs, and RANNs under our own names.

    variables, skipped = interop.load_torch("Cnn14_mAP=0.431.pth", "cnn14")
    logits = models.create("cnn14", num_classes=527).apply(variables, images)
    interop.save_torch("cnn14.pth", variables, "cnn14")

Reading or writing `.pth` needs torch, `.safetensors` needs safetensors; both are imported only when needed.
"""

from rann_jax.interop.convert import Loaded, from_state_dict, load_torch, save_torch, to_state_dict
from rann_jax.interop.files import read_entries
from rann_jax.interop.front_end import check_front_end

__all__ = [
    "Loaded",
    "check_front_end",
    "from_state_dict",
    "load_torch",
    "read_entries",
    "save_torch",
    "to_state_dict",
]

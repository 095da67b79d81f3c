"""RANN in PyTorch, written from the deck's tables alone: the oracle of the parity tests.

The layout is (B, 1, F, T). Entries have the names of the flax module, so that weights transfer by name.
"""

from torch import nn
from torch.nn import functional

T_M = {1: 0, 2: 1, 4: 2, 8: 3}


class Block(nn.Module):
    def __init__(self, inputs: int, channels: int, strides: tuple[int, int]):
        super().__init__()
        kernel, padding = (6, 2) if strides[1] == 4 else (3, 1)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, channels, (3, kernel), strides, (1, 1), bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        kernel = 5 if strides[1] == 4 else 3
        self.conv2 = nn.Conv2d(channels, channels, (3, kernel), 1, (1, padding), bias=False)
        self.projected = inputs != channels or strides != (1, 1)
        if self.projected:
            self.shortcut_conv = nn.Conv2d(inputs, channels, 1, strides, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.conv1(functional.leaky_relu(self.norm1(x), 0.01, inplace=True))
        y = self.conv2(functional.leaky_relu(self.norm2(y), 0.01, inplace=True))
        return y + (self.shortcut_norm(self.shortcut_conv(x)) if self.projected else x)


class TorchRANN(nn.Module):
    def __init__(self, num_classes: int, t_m: int, width: int, n_bins: int = 128, blocks: int = 4):
        super().__init__()
        self.input_norm = nn.BatchNorm2d(n_bins)
        inputs, self.block_names = 1, []
        for stage in range(5):
            channels = 8 * width * 2**stage
            time_stride = 4 if 1 <= stage <= T_M[t_m] else 2
            for block in range(blocks):
                strides = (2, time_stride) if stage > 0 and block == 0 else (1, 1)
                name = f"stage{stage}_block{block}"
                self.add_module(name, Block(inputs, channels, strides))
                self.block_names.append(name)
                inputs = channels
        self.fc1 = nn.Linear(inputs, inputs)
        self.fc2 = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = self.input_norm(x[:, :, None])  # (B, F, 1, T): the bins are the channels
        x = x.transpose(1, 2)
        for name in self.block_names:
            x = getattr(self, name)(x)
        x = x.mean((2, 3)) + x.amax((2, 3))
        return self.fc2(functional.leaky_relu(self.fc1(x), 0.01))

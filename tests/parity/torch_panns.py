"""ResNet38 and Wavegram-Logmel-CNN14 in PyTorch, written from their descriptions: oracles of parity tests.

They take images (B, 1, T, F) and waveforms (B, N) and have no dropout, so that training is comparable.
Modules have the published names. `width` divides the channels.
"""

import torch
from torch import nn
from torch.nn import functional


class ConvBlock(nn.Module):
    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x, pool=(2, 2)):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.avg_pool2d(x, pool)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        if stride == 2:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(2), nn.Conv2d(inputs, channels, 1, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = functional.avg_pool2d(x, 2) if self.stride == 2 else x
        y = functional.relu(self.bn1(self.conv1(y)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (self.downsample(x) if self.stride == 2 else x))


class WaveBlock(nn.Module):
    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=2, dilation=2, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.max_pool1d(x, 4)


class Pann(nn.Module):
    """The parts that both networks share: first normalisation, pooling and head."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(64)
        self.fc1 = nn.Linear(2048 // width, 2048 // width)
        self.fc_audioset = nn.Linear(2048 // width, num_classes)

    def normalised(self, image):
        return self.bn0(image.transpose(1, 3)).transpose(1, 3)

    def head(self, x):
        x = x.mean(3)
        return self.fc_audioset(functional.relu(self.fc1(x.amax(2) + x.mean(2))))


class TorchResNet38(Pann):
    def __init__(self, num_classes: int, width: int = 1):
        super().__init__(num_classes, width)
        self.conv_block1 = ConvBlock(1, 64 // width)
        self.resnet = nn.Module()
        inputs = 64
        for stage, (blocks, channels) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), 1):
            layer = nn.Sequential()
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                layer.append(BasicBlock(inputs // width, channels // width, stride))
                inputs = channels
            self.resnet.add_module(f"layer{stage}", layer)
        self.conv_block_after1 = ConvBlock(512 // width, 2048 // width)

    def forward(self, image):
        x = self.conv_block1(self.normalised(image))
        for layer in self.resnet.children():
            x = layer(x)
        return self.head(self.conv_block_after1(functional.avg_pool2d(x, 2), pool=(1, 1)))


class TorchWavegramLogmelCnn14(Pann):
    def __init__(self, num_classes: int, width: int = 1):
        super().__init__(num_classes, width)
        self.pre_conv0 = nn.Conv1d(1, 64 // width, 11, stride=5, padding=5, bias=False)
        self.pre_bn0 = nn.BatchNorm1d(64 // width)
        self.pre_block1 = WaveBlock(64 // width, 64 // width)
        self.pre_block2 = WaveBlock(64 // width, 128 // width)
        self.pre_block3 = WaveBlock(128 // width, 128 // width)
        self.pre_block4 = ConvBlock(4 // width, 64 // width)
        self.conv_block1 = ConvBlock(1, 64 // width)
        for number, inputs in enumerate((128, 128, 256, 512, 1024), 2):
            block = ConvBlock(inputs // width, 32 * 2**number // width)
            self.add_module(f"conv_block{number}", block)

    def forward(self, image, waveform):
        a = functional.relu(self.pre_bn0(self.pre_conv0(waveform[:, None])))
        a = self.pre_block3(self.pre_block2(self.pre_block1(a)))  # (B, 128, N / 320)
        a = a.unflatten(1, (-1, 32)).transpose(2, 3)  # (B, 4, T, 32)
        a = self.pre_block4(a, pool=(2, 1))
        x = torch.cat((self.conv_block1(self.normalised(image)), a), dim=1)
        for number in range(2, 7):
            x = getattr(self, f"conv_block{number}")(x, pool=(2, 2) if number < 6 else (1, 1))
        return self.head(x)

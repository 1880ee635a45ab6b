"""The MLP of transformer blocks: B clips; N tokens; C channels."""

from torch import Tensor, nn


class Mlp(nn.Module):
    """Two linear layers around an exact GELU: (B, N, C) -> (B, N, C')."""

    def __init__(self, dim: int, dim_hidden: int, dim_out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim_hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(dim_hidden, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]

"""The rows of rows.toml, one per model, each with a name that can be typed."""

import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path

MODELS = {
    "s": "vit_small_patch16_dinov3.lvd1689m",
    "s-qkvb": "vit_small_patch16_dinov3_qkvb.lvd1689m",
    "s-plus": "vit_small_plus_patch16_dinov3.lvd1689m",
    "b": "vit_base_patch16_dinov3.lvd1689m",
    "l": "vit_large_patch16_dinov3.lvd1689m",
    "h-plus": "vit_huge_plus_patch16_dinov3.lvd1689m",
    "7b": "vit_7b_patch16_dinov3.sat493m",
    "convnext-t": "convnext_tiny.dinov3_lvd1689m",
    "convnext-b": "convnext_base.dinov3_lvd1689m",
}
TITLES = {
    "s": "ViT-S", "s-qkvb": "ViT-S qkvb", "s-plus": "ViT-S+", "b": "ViT-B", "l": "ViT-L", "h-plus": "ViT-H+", "7b": "ViT-7B",
    "convnext-t": "ConvNeXt-T", "convnext-b": "ConvNeXt-B",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    kind: str
    precision: str
    gate: float
    stretch: float
    model: str = ""
    batch: int = 8
    size_px: int = 256
    peers: list[str] = field(default_factory=list)
    peer_precision: str = ""
    against: str = ""
    neighbours: int = 0
    picture_px: list[int] = field(default_factory=list)
    along: str = ""
    points: list = field(default_factory=list)
    opt_in: bool = False

    @property
    def name(self) -> str:
        against = self.against or "-".join(self.peers)
        match self.kind:
            case "compare":
                return f"{self.model}-{self.precision}-b{self.batch}-{against}"
            case "share":
                return f"{self.model}-{self.precision}-share"
            case "first":
                return f"{self.model}-first-{against}"
            case "neighbours":
                return f"{self.model}-{self.precision}-neighbours-{self.neighbours}"
            case "pipeline":
                height, width = self.picture_px
                return f"{self.model}-{self.precision}-{width}x{height}-{against}"
            case "growth":
                model = self.model or ("7b" if "7b" in self.points else "vit")
                return f"{model}-{self.precision}-growth-{self.along}"
        raise ValueError(f"kind '{self.kind}' is unknown")

    @property
    def title(self) -> str:
        """The case in words."""
        model = TITLES.get(self.model, "ViT")
        match self.kind:
            case "compare":
                return f"{model}, {self.precision}, batch {self.batch}"
            case "share":
                return f"{model}, {self.precision}, batch {self.batch}: share of peak"
            case "first":
                return f"{model}, {self.precision}: first embedding, whole process"
            case "neighbours":
                return f"{model}, {self.precision}: speed kept beside {self.neighbours} busy"
            case "pipeline":
                height, width = self.picture_px
                return f"{model}, {self.precision}: from {width} × {height} JPEGs"
        return f"{model}, {self.precision}: cost growth, {self.along} {self.points[0]} to {self.points[-1]}"

    @property
    def lower_is_better(self) -> bool:
        return self.kind == "growth"

    def facts(self) -> dict:
        return {"name": self.name, "title": self.title} | asdict(self)


def read(path: Path = Path(__file__).with_name("rows.toml")) -> list[Row]:
    rows = []
    for entry in tomllib.loads(path.read_text())["rows"]:
        models = entry.pop("models", [""])
        for index, model in enumerate(models):
            limits = {key: entry[key][index] if isinstance(entry[key], list) else entry[key] for key in ("gate", "stretch")}
            rows.append(Row(**(entry | limits), model=model))
    names = [row.name for row in rows]
    assert len(set(names)) == len(names), "two rows have one name"
    return rows

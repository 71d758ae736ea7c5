"""A few rows of SkyPilot's price catalog, so that its parser, validator and optimizer work without a network."""

from pathlib import Path

_HEADER = (
    "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Region,AvailabilityZone,Price,SpotPrice"
)
_GPU_INFO = "{'Gpus': [{'MemoryInfo': {'SizeInMiB': 81920}}]}"
# zone: host price, host spot price, GPU price, GPU spot price, US dollars per hour for one A100-80GB (a2-ultragpu-1g)
_A100 = {
    "us-central1-a": (1.09962, 0.54978, 1.8462, 1.964),
    "us-east5-a": (1.09962, 0.31193, 4.4242, 1.3356),
    "europe-west4-a": (1.2105, 0.47328, 2.03285, 2.1626),
}


def write_catalog(home: Path) -> None:
    """Write the catalog to SkyPilot's path below `home`; existing files are never fetched again."""
    folder = home / ".sky" / "catalogs" / "v8"
    rows = [_HEADER]
    for zone, (host, host_spot, gpu, gpu_spot) in _A100.items():
        place = f"{zone.rsplit('-', 1)[0]},{zone}"
        for count in (1, 2, 4, 8):
            rows.append(
                f"a2-ultragpu-{count}g,{12 * count}.0,{170 * count}.0,,,,{place},{host * count},{host_spot * count}"
            )
            rows.append(f',,,A100-80GB,{count},"{_GPU_INFO}",{place},{gpu * count},{gpu_spot * count}')
    _write(folder / "gcp" / "vms.csv", "\n".join(rows))
    _write(folder / "gcp" / "images.csv", "Tag,Region,OS,OSVersion,ImageId,CreationDate,BaseImageId")
    _write(folder / "common" / "accelerators.csv", "AcceleratorName,Clouds\nA100-80GB,\"['GCP']\"")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")

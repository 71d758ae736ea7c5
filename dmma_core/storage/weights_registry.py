"""All published files that DMMA can use: URL, size, sha256 and licence.

The sha256 are those of the Git LFS pointers on the Hugging Face hub. For sources that publish none (MiDaS, and the
hub's small files outside LFS), the first fetch records the sha256 and later checks compare with it.
"""

from dataclasses import dataclass

_MMAUDIO = "https://huggingface.co/hkchengrex/MMAudio/resolve/main"
_MIDAS = "https://github.com/isl-org/MiDaS/releases/download"
_DEPTH_ANYTHING = "https://huggingface.co/depth-anything/Depth-Anything-V2-Small-hf/resolve/main"

NON_COMMERCIAL = "CC-BY-NC-4.0"


@dataclass(frozen=True)
class WeightsFile:
    """One published file. `name` is its name within DMMA, `filename` its path in the cache and in a mirror.

    `size_bytes` is exact unless `size_is_rounded`: some sources publish megabytes only.
    """

    name: str
    filename: str
    url: str
    license: str
    purpose: str
    size_bytes: int
    sha256: str | None = None
    size_is_rounded: bool = False


FILES = (
    WeightsFile(
        "mmaudio_small_16k",
        "mmaudio_small_16k.pth",
        f"{_MMAUDIO}/weights/mmaudio_small_16k.pth",
        NON_COMMERCIAL,
        "MMAudio flow network, small, 16 kHz",
        629_395_261,
        "61987bcbd6fc689af063075d7efaef29425f65df155dac589c07fa8173a03c1c",
    ),
    WeightsFile(
        "mmaudio_small_44k",
        "mmaudio_small_44k.pth",
        f"{_MMAUDIO}/weights/mmaudio_small_44k.pth",
        NON_COMMERCIAL,
        "MMAudio flow network, small, 44.1 kHz",
        629_946_624,
        "11fd92e860a58f0fac972706dd06034e49dceff2e1450bbde5703785c812b0f1",
    ),
    WeightsFile(
        "mmaudio_medium_44k",
        "mmaudio_medium_44k.pth",
        f"{_MMAUDIO}/weights/mmaudio_medium_44k.pth",
        NON_COMMERCIAL,
        "MMAudio flow network, medium, 44.1 kHz",
        2_487_535_109,
        "3c6b01b5767a92f71529474faffedca2309416ff822b57b0c8d18be218cfb41a",
    ),
    WeightsFile(
        "mmaudio_large_44k",
        "mmaudio_large_44k.pth",
        f"{_MMAUDIO}/weights/mmaudio_large_44k.pth",
        NON_COMMERCIAL,
        "MMAudio flow network, large, 44.1 kHz",
        4_120_388_840,
        "b3094f49ec67847dc5cf989982033b674574fd35f313d2fe4e54de8998a576dd",
    ),
    WeightsFile(
        "mmaudio_large_44k_v2",
        "mmaudio_large_44k_v2.pth",
        f"{_MMAUDIO}/weights/mmaudio_large_44k_v2.pth",
        NON_COMMERCIAL,
        "MMAudio flow network, large, 44.1 kHz, version 2",
        4_122_474_715,
        "a6bf693424fbd4ce0244fff8c412347714d5ac586e28dbeffadfa0f2b647af74",
    ),
    WeightsFile(
        "mmaudio_vae_16k",
        "v1-16.pth",
        f"{_MMAUDIO}/ext_weights/v1-16.pth",
        NON_COMMERCIAL,
        "MMAudio audio VAE, 16 kHz",
        686_652_758,
        "15ad082c714ccf3771898a771fc6eebdc1d9c8d5c6154726906a97f43603d62c",
    ),
    WeightsFile(
        "mmaudio_vae_44k",
        "v1-44.pth",
        f"{_MMAUDIO}/ext_weights/v1-44.pth",
        NON_COMMERCIAL,
        "MMAudio audio VAE, 44.1 kHz",
        1_221_942_998,
        "ab6cc15dc31947675f75c950c41f4dcfd0d6d1817555ac871f809ec388e4651a",
    ),
    WeightsFile(
        "bigvgan_16k",
        "best_netG.pt",
        f"{_MMAUDIO}/ext_weights/best_netG.pt",
        NON_COMMERCIAL,
        "BigVGAN vocoder, 16 kHz (of Make-An-Audio 2, as shipped with MMAudio)",
        449_217_313,
        "970ca75ee4d5ce583e9396a4534acb14971ea2b4f1c22e038f476680c868a789",
    ),
    WeightsFile(
        "bigvgan_v2_44k",
        "bigvgan_v2_44khz_128band_512x.pt",
        "https://huggingface.co/nvidia/bigvgan_v2_44khz_128band_512x/resolve/main/bigvgan_generator.pt",
        "MIT",
        "BigVGAN-v2 vocoder, 44.1 kHz",
        489_041_291,
        "d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357",
    ),
    WeightsFile(
        "synchformer",
        "synchformer_state_dict.pth",
        f"{_MMAUDIO}/ext_weights/synchformer_state_dict.pth",
        NON_COMMERCIAL,
        "Synchformer, visual encoder at 24 features per second (as shipped with MMAudio)",
        950_058_171,
        "8aff082f2df5c3bc52759db0c865c7ee772ae6400b860d1b7e90413f2defb67c",
    ),
    WeightsFile(
        "clip_dfn5b_h14_384",
        "dfn5b_clip_vit_h_14_384.bin",
        "https://huggingface.co/apple/DFN5B-CLIP-ViT-H-14-378/resolve/main/open_clip_pytorch_model.bin",
        "Apple AMLR (research only)",
        "CLIP ViT-H/14 for images of 384 pixels, in open_clip's layout",
        3_947_081_637,
        "c07a17b547d461c60a3cce5062b26bf8545b13de602c4c59d8490361eb716033",
    ),
    WeightsFile(
        "midas_dpt_hybrid_384",
        "dpt_hybrid_384.pt",
        f"{_MIDAS}/v3/dpt_hybrid_384.pt",
        "MIT",
        "MiDaS v3 DPT-Hybrid, the depth network of DeepMMAudio",
        492_757_791,
        size_is_rounded=True,
    ),
    WeightsFile(
        "midas_dpt_large_384",
        "dpt_large_384.pt",
        f"{_MIDAS}/v3/dpt_large_384.pt",
        "MIT",
        "MiDaS v3 DPT-Large",
        1_376_378_527,
        size_is_rounded=True,
    ),
    WeightsFile(
        "midas_v21_small_256",
        "midas_v21_small_256.pt",
        f"{_MIDAS}/v2_1/midas_v21_small_256.pt",
        "MIT",
        "MiDaS v2.1 small",
        85_761_505,
        size_is_rounded=True,
    ),
    WeightsFile(
        "depth_anything_v2_small",
        "depth_anything_v2_small/model.safetensors",
        f"{_DEPTH_ANYTHING}/model.safetensors",
        "Apache-2.0",
        "Depth Anything V2 small, for transformers",
        99_173_660,
        "3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
    ),
    WeightsFile(
        "depth_anything_v2_small_config",
        "depth_anything_v2_small/config.json",
        f"{_DEPTH_ANYTHING}/config.json",
        "Apache-2.0",
        "Its architecture",
        950,
        size_is_rounded=True,
    ),
    WeightsFile(
        "depth_anything_v2_small_preprocessor",
        "depth_anything_v2_small/preprocessor_config.json",
        f"{_DEPTH_ANYTHING}/preprocessor_config.json",
        "Apache-2.0",
        "Its input size and normalisation",
        775,
        size_is_rounded=True,
    ),
)

# All files of a bundle or network, to be fetched by one name.
GROUPS = {
    "bundle_mmaudio_16k": (
        "clip_dfn5b_h14_384",
        "synchformer",
        "midas_dpt_hybrid_384",
        "mmaudio_vae_16k",
        "bigvgan_16k",
    ),
    "bundle_mmaudio_44k": (
        "clip_dfn5b_h14_384",
        "synchformer",
        "midas_dpt_hybrid_384",
        "mmaudio_vae_44k",
        "bigvgan_v2_44k",
    ),
    "depth_anything_v2_small_folder": (
        "depth_anything_v2_small",
        "depth_anything_v2_small_config",
        "depth_anything_v2_small_preprocessor",
    ),
}

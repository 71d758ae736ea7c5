"""render: clips of a small physical world, with captions and the ground truth of distance, depth and onsets."""

from collections.abc import Sequence
from dataclasses import replace

from dmma_core.data.scenes import check_settings, complete_render, is_rendered, unfinished_blocks
from dmma_core.job_configs import RenderConfig
from dmma_core.log import Progress
from dmma_core.storage import paths
from ray_jobs.common.job import Job
from ray_jobs.common.runtime import connect, plain_errors
from ray_jobs.stages.render_blocks import render_blocks


def plan(config: RenderConfig) -> Sequence[str]:
    check_settings(config.scenes, config.out_uri)
    paths.check_writable(config.out_uri)
    scenes = config.scenes
    done = "They are complete already." if is_rendered(config.out_uri) else "Finished clips there are kept."
    return [
        f"Render {scenes.num_clips} clips of {scenes.duration_s:g} s at {scenes.width}x{scenes.height}, {scenes.fps:g} fps.",
        f"Write them to {config.out_uri} with captions.tsv and truth.parquet. {done}",
    ]


def run(config: RenderConfig) -> None:
    config = replace(config, out_uri=paths.absolute(config.out_uri))  # workers have working directories of their own
    blocks = unfinished_blocks(config.scenes, config.out_uri)
    if not is_rendered(config.out_uri):
        with Progress("render", config.scenes.num_clips) as shown:
            shown.advance(config.scenes.num_clips - sum(map(len, blocks)))
            if blocks:
                with connect(), plain_errors():
                    for num_clips in render_blocks(config.scenes, config.out_uri, blocks):
                        shown.advance(num_clips)
        complete_render(config.scenes, config.out_uri)
    print(f"{config.scenes.num_clips} rendered clips in {config.out_uri}, with captions.tsv and truth.parquet.")


JOB = Job(
    name="render",
    summary="Render clips of a small physical world, with captions and the ground truth of distance, depth and onsets.",
    config=RenderConfig,
    plan=plan,
    run=run,
    example="dmma render out_uri=data/rendered scenes.num_clips=200 scenes.seed=1",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())

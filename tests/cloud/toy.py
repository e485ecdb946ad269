"""A project that trains in a second: two stages of plain Python, so that what is tested is the machine around it.

    prepare -> index/ (of no interest to the DVC remote) -> train -> models/, curves.csv (kept by git)

Its trainer counts. It writes a checkpoint each step and goes on from the newest; SIGTERM ends it after a step. The file
`mood` says what else it does.
"""

import subprocess
from pathlib import Path

from tests.cloud.conftest import Clone

FILES = {
    "dvc.yaml": """
stages:
  prepare:
    cmd: python prepare.py
    deps: [prepare.py]
    outs:
      - index:
          push: false
  train:
    cmd: python train.py
    deps: [index, train.py, mood]
    params: [steps]
    outs:
      - models
      - metrics/train/curves.csv:
          cache: false
""",
    "params.yaml": "steps: 20\n",
    "mood": "good\n",
    ".gitignore": "/runs/\n",
    "prepare.py": """
from pathlib import Path
folder = Path("index/deep")
folder.mkdir(parents=True)
(folder / "a").write_bytes(bytes(range(256)) * 4000)
(folder.parent / "b").write_text("b")
""",
    "train.py": """
import os, signal, sys, time
from pathlib import Path

mood, steps = Path("mood").read_text().strip(), int(Path("params.yaml").read_text().split(":")[1])
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
runs, out = Path("runs/toy"), Path("models")
runs.mkdir(parents=True, exist_ok=True)
found = sorted(runs.glob("checkpoint-*.pt"))
step = int(found[-1].read_text()) if found else 0
print(f"going on from step {step}" if step else "beginning", os.environ.get("LOUPE_DEVICES"), flush=True)
while step < steps:
    step += 1
    time.sleep(0.1)
    part = runs / ".part"
    part.write_text(str(step))
    part.replace(runs / f"checkpoint-{step:08}.pt")
    for old in sorted(runs.glob("checkpoint-*.pt"))[:-2]:
        old.unlink()
    print(f"step {step}/{steps}", flush=True)
    if asked:
        sys.exit(143)
    if mood == "bad" and step == 5:
        sys.exit("error: the toy is broken: wind it up")
out.mkdir()
(out / "model").write_text(f"{steps} steps on {sum(Path('index/deep/a').read_bytes())}")
Path("metrics/train").mkdir(parents=True, exist_ok=True)
Path("metrics/train/curves.csv").write_text(f"step\\n{steps}\\n")
for path in runs.glob("checkpoint-*.pt"):
    path.unlink()
""",
}


def make_toy(folder: Path, bucket: str, *, steps: int = 20, mood: str = "good") -> Clone:
    """The project, committed, with `prepare` done and its DVC remote in a bucket."""
    for name, text in (FILES | {"params.yaml": f"steps: {steps}\n", "mood": f"{mood}\n"}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    toy = Clone(folder)
    toy.run("dvc", "init", "--quiet")
    toy.run("dvc", "repro", "--quiet", "prepare")
    toy.run("git", "add", "--all")
    toy.run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", "toy")
    toy.run("dvc", "remote", "add", "--local", "--default", "s3", f"s3://{bucket}/dvc")
    return toy

#!/usr/bin/env bash
# Trains in a folder unpacked from what `scripts/champion.sh --pack` wrote: on a machine with a GPU, Python and PyTorch,
# which needs no network, no DVC and no git (docs/recipes.md). What comes of it goes back by `--trained`.
set -euo pipefail

[[ $# == [12] && $1 != -* ]] || {
  echo "usage: scripts/train-apart.sh OUT [MINUTES]   what is trained, or a checkpoint after so long" >&2
  exit 2
}
out=$(realpath -m "$1") minutes=${2:-0}
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}

if ! cmp -s pack.id index.id; then # nothing was trained here, or another pack was
  rm -rf index index.id models metrics/train
  python3 -m loupe.stages.patch_index
  cp pack.id index.id
fi
code=0
if [[ ! -d models ]]; then
  timeout "${minutes}m" python3 -m loupe.stages.train & child=$! # 0: for ever
  trap 'kill "$child" 2> /dev/null' INT TERM HUP
  wait "$child" || code=$?
  while kill -0 "$child" 2> /dev/null; do sleep 0.2; done # it writes its checkpoint
fi
if [[ -d models ]]; then
  found=(models metrics/train/curves.csv)
elif compgen -G 'runs/*/checkpoint-*.pt' > /dev/null; then
  found=()
  echo "$out: a checkpoint; the same command goes on here, --trained and --pack elsewhere" >&2
else
  exit "$code"
fi
mkdir -p "$out"
rm -rf "$out/new" && mkdir "$out/new"
# in parts, for what carries them may limit a file's size
tar -c pack.id runs "${found[@]}" | split -b 15M - "$out/new/trained.tar."
rm -f "$out"/trained.tar.* && mv "$out"/new/* "$out" && rmdir "$out/new"
exit "$code"

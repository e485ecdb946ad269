#!/usr/bin/env bash
# Trains the network that ships (docs/recipes.md), by the project's own commands in a clone of its own, and publishes it
# into a release store in a folder. Ended at any moment, the same command goes on from there.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/champion.sh --photos DIR --products DIR [--products DIR ...] --store DIR
                           [--licences FILE] [--benchmarks DIR] [--profile champion] [--set KEY=VALUE ...]
                           [--work .cache/champion] [--minutes N] [--pack FILE] [--trained DIR]

  --photos    photographs, lossless; a fifth of them, chosen by content, is held out
  --products  product images: as `loupe ingest` takes them
  --licences  Markdown for the model card: where the pictures come from, under which terms
  --benchmarks
              a folder with Set5/HR and the like: their scores go into the model card
  --store     folder for the release store that the network is published into
  --profile   the recipe: champion (two CPU cores, two and a half hours), champion-2 and champion-jpeg, which go on from
              versions that ship, or champion-3 (a GPU)
  --set       changes the recipe, as in `loupe profile`
  --work      where clone and data are; kept, so that the next call goes on
  --minutes   stops after so long; call again to go on
  --pack      stops before training and writes a tar file of all that it needs, for a machine with a GPU:
              scripts/train-apart.sh, which is in it, trains there
  --trained   the folder that train-apart.sh filled: goes on with what was trained, or from its checkpoint
TEXT
}
wrong() { usage >&2; exit 2; }
fail() { echo "error: $*" >&2; exit 2; }

photos='' licences='' benchmarks='' store='' profile=champion work=.cache/champion minutes=0 pack='' trained=''
products=() changes=(--set 'photos={path: ../photos}')
while (($#)); do
  [[ $1 != --help ]] || { usage; exit 0; }
  (($# > 1)) || wrong
  case $1 in
    --photos) photos=$2 ;;
    --products) products+=("$2") ;;
    --licences) licences=$(realpath -e "$2") ;;
    --benchmarks) benchmarks=$(realpath -e "$2") && changes+=(--set evaluation.benchmarks=../benchmarks) ;;
    --store) store=$2 ;;
    --profile) profile=$2 ;;
    --set) changes+=(--set "$2") ;;
    --work) work=$2 ;;
    --minutes) minutes=$2 ;;
    --pack) pack=$(realpath -m "$2") ;;
    --trained) trained=$(realpath -e "$2") ;;
    *) wrong ;;
  esac
  shift 2
done
[[ $photos && $store && ${products[*]-} ]] || wrong
photos=$(realpath -e "$photos") store=$(realpath -m "$store")
for number in "${!products[@]}"; do products[number]=$(realpath -e "${products[number]}"); done

[[ ! $trained ]] || compgen -G "$trained/trained.tar.*" > /dev/null ||
  fail "$trained: holds nothing from train-apart.sh"
[[ ! $benchmarks ]] || compgen -G "$benchmarks/*/HR" > /dev/null || fail "$benchmarks: holds no Set5/HR or the like"

root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
order=$(printf '%s\n' "$photos" "${products[@]}" "$profile" "${changes[@]}")
mkdir -p "$work"
cd "$work"
[[ ! -e order || $(<order) == "$order" ]] ||
  fail "$work: was begun with other pictures or another recipe; remove it, or choose another --work"
printf '%s\n' "$order" > order
ln -sfn "$photos" photos
[[ ! $benchmarks ]] || ln -sfn "$benchmarks" benchmarks
[[ -d loupe ]] || { rm -rf loupe.part && git clone -q "$root" loupe.part && mv loupe.part loupe; }
cd loupe
export PATH="$root/.venv/bin:$PATH" PYTHONPATH="$PWD/src:$PWD" DVC_NO_ANALYTICS=1 DO_NOT_TRACK=1

commit() { git diff --quiet HEAD || git -c user.name=loupe -c user.email=loupe@localhost commit -qam "$1"; }

if [[ ! -e ../ready ]]; then
  dvc pull -q data.dvc
  for folder in "${products[@]}"; do
    # it ends with 1 also when some pictures are in quarantine
    loupe ingest "$folder" --json > ../ingested.json || (($? == 1)) && [[ -s ../ingested.json ]] ||
      fail "$folder: not taken in"
    echo "$folder: taken in"
  done
  loupe profile "$profile" "${changes[@]}"
  [[ ! $licences ]] || cp "$licences" data/LICENCES.md
  commit "Data and recipe of the champion"
  touch ../ready
fi

if [[ $pack || $trained ]]; then
  dvc repro validate
  # what a training depends on: its code, its recipe, its pictures
  { git rev-parse HEAD:src && cat params.yaml data.dvc && sed -n '/^  download:/,/^  [^ d]/p' dvc.lock; } |
    sha256sum > ../pack.id
fi
[[ ! $trained ]] || cat "$trained"/trained.tar.* | sha256sum > ../taking
# what was taken before is not taken again: training may have gone on since
if [[ $trained ]] && ! cmp -s ../taking ../taken; then
  rm -rf ../trained && mkdir ../trained
  cat "$trained"/trained.tar.* | tar -x --no-same-owner -C ../trained || fail "$trained: not whole; copy it again"
  cmp -s ../pack.id ../trained/pack.id ||
    fail "$trained: was trained with other pictures, code or parameters than these"
  rm -rf runs && mv ../trained/runs runs
  if [[ -d ../trained/models ]]; then
    dvc repro patch-index
    rm -rf models && mv ../trained/models models
    mkdir -p metrics/train && mv ../trained/metrics/train/curves.csv metrics/train/
    dvc commit -f train
  fi
  mv ../taking ../taken
fi
if [[ $pack ]]; then
  init=$(python -c 'from loupe.params import load_params; print(load_params().train.init or "")')
  [[ ! $init || -d $init ]] || fail "train.init = $init: no such folder in $PWD"
  files=(data/photos data/products)
  [[ ! $init ]] || files+=("$init")
  [[ ! -d runs ]] || files+=(runs)
  { git ls-files -z params.yaml scripts/train-apart.sh src ':!src/loupe/seed' && printf '%s\0' "${files[@]}"; } |
    tar -chf "$pack.part" --null -T - -C .. pack.id
  mv "$pack.part" "$pack"
  echo "$pack: there, unpack it and call scripts/train-apart.sh"
  exit
fi

timeout "${minutes}m" dvc repro & child=$! # 0: for ever. It makes a process group, and hands a signal to all in it
trap 'kill "$child" 2> /dev/null' INT TERM HUP
code=0
wait "$child" || code=$?
while kill -0 -- "-$child" 2> /dev/null; do sleep 0.2; done # a trainer writes its checkpoint
trap - INT TERM HUP
((code != 124)) || echo "the time is up: the same command goes on from here" >&2
((code == 0)) || exit "$code"
commit "Train the champion"
python -m loupe.stages.show
if grep -qs "$(sha256sum bundle/MANIFEST.json | cut -d ' ' -f 1)" "$store/aliases/production.json"; then
  exec loupe registry verify --store "$store" # what a promotion that was cut off has left to do
fi
loupe registry promote --store "$store" --by loupe --reason "the network that ships"

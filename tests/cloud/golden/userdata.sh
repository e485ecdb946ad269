#!/bin/bash
shutdown -h +360 || shutdown -h now
# A machine that trains. It ends by the line above, whatever happens, and by the trap as soon as it has nothing to do;
# ending means that it is terminated. It holds no secret: its rights are those of its instance profile.
trap 'shutdown -h now' EXIT
child=
trap '[ -n "$child" ] && kill -TERM "$child" || exit 143' TERM
set -uo pipefail
# A reboot would forget the deadline: after one the machine ends at once. cloud-init has run these scripts for this boot.
boot="${LOUPE_PER_BOOT:-/var/lib/cloud/scripts/per-boot}"
mkdir -p "$boot" && printf '#!/bin/sh\nshutdown -h now\n' > "$boot/loupe" && chmod +x "$boot/loupe"
export LOUPE_STOP_AT=$(($(date +%s) + 21480))
export LOUPE_HOME="${LOUPE_HOME:-/opt/loupe}"
export AWS_DEFAULT_REGION='eu-central-1'
export HOME="${HOME:-/root}"
export AWS_METADATA_SERVICE_TIMEOUT=5 AWS_METADATA_SERVICE_NUM_ATTEMPTS=6  # of the role's rights; a new machine is slow
mkdir -p "$LOUPE_HOME"
exec > >(tee -a "$LOUPE_HOME/boot.log") 2>&1

script="$LOUPE_HOME/bootstrap.py"
for pause in 2 4 8 16 32 0; do
  aws s3 cp --only-show-errors 's3://loupe-123456789012-eu-central-1/ec2/bootstrap/SHA256-OF-BOOTSTRAP.py' "$script" && break
  sleep "$pause"
done
echo 'SHA256-OF-BOOTSTRAP  '"$script" | sha256sum --check --quiet || exit 1

python3 "$script" --bucket 'loupe-123456789012-eu-central-1' --prefix 'ec2' --run 'retrain-2026-01-31' --attempt 2 &
child=$!
wait "$child" || wait "$child"

#!/bin/sh
# An environment of its own for GPAW and atomate2, to confirm crystals by DFT: scripts/install_gpaw.sh [FOLDER]
#
# On Debian, as root: GPAW is built from source against Debian's libxc and OpenBLAS, without MPI, and takes its PAW sets
# from Debian's package. Afterwards FOLDER/bin/python runs what `phononbench confirm --write` has written:
#   GPAW_SETUP_PATH=/usr/share/gpaw-setups FOLDER/bin/python scripts/run_flows.py DIR
set -eu
folder=${1:-.venv-gpaw}
apt-get update -qq
apt-get install -y -qq --no-install-recommends gcc libxc-dev libopenblas-dev gpaw-data
uv venv --python 3.12 "$folder"
cat > "$folder/siteconfig.py" <<'CONFIG'
mpi = False
compiler = 'gcc'
libraries = ['xc', 'openblas']
CONFIG
GPAW_CONFIG="$folder/siteconfig.py" uv pip install --python "$folder/bin/python" --no-binary gpaw \
    'gpaw==26.7.0' 'atomate2>=0.1.6,<0.2' 'ase>=3.29,<3.30' 'phonopy>=4.10,<4.11' 'seekpath>=2.2,<3' \
    'emmet-core>=0.88,<0.89' 'jobflow>=0.4,<0.5' 'fireworks>=2.1.4,<2.2' 'pymatgen>=2026.10,<2027'
GPAW_SETUP_PATH=/usr/share/gpaw-setups "$folder/bin/python" -c 'import gpaw, atomate2; print("GPAW", gpaw.__version__)'

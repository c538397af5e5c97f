#!/bin/sh
# Builds opus_demo and fargan_demo of libopus 1.6.1 with FARGAN, DRED, LACE and NoLACE,
# whose weights stand as C sources in the crate opusic-sys 0.7.7 (BSD-3-Clause).
#
#     sh build_opus.sh FOLDER        FOLDER/opus is then `--opus` of copy_synthesis.py
#
# Needs cargo, a C compiler and make.
set -eu
mkdir -p "$1/fetch"
cd "$1"
printf '[package]\nname = "fetch"\nversion = "0.1.0"\nedition = "2021"\n[lib]\npath = "lib.rs"\n[dependencies]\nopusic-sys = "=0.7.7"\n' > fetch/Cargo.toml
: > fetch/lib.rs
(cd fetch && cargo fetch)
cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/opusic-sys-0.7.7/opus .
cd opus
chmod +x configure
# the crate's files all bear one old date; make would run the autotools otherwise
find . -exec touch -r configure {} +
./configure --disable-shared --disable-doc --enable-dred --enable-osce --enable-deep-plc CFLAGS="-O2 -fno-tree-vectorize"
make -j2 opus_demo fargan_demo

#!/bin/sh
# The patch store that {patches} of the deployments means by default: the shipped samples, cut. Called again it makes
# only what is missing. Whoever has named a store of their own needs none.
set -eu
[ -z "${PNGNOISE_PATCHES:-}" ] || exit 0
place=$PNGNOISE_STORAGE/data/samples
pngnoise ingest pngmodel/samples --adapter configs/datasets/samples.yaml --output "$place/catalogue"
pngnoise patches "$place/catalogue" --size 128 --cluster inline --output "$place/patches"

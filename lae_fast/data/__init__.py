"""Where rows come from, and what is written: arrays, frames, files, blocks, checkpoints."""

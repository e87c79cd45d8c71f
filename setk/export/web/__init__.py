"""A model as one self-contained page for browsers: microphone, files, meters, spectrograms."""

"""From S, or rows, to trained weights: `start.start` makes a run and `train.proceed` moves it."""

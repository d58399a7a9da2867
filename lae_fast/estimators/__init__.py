"""scikit-learn's contract: PCA, IncrementalPCA, TruncatedSVD, LinearAutoencoder. No arithmetic over the data."""

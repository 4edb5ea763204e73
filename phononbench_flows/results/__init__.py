"""Results for people and other programs: questions to a store, files, bundles, and band structures to look at."""

"""Keep accepted messages until their fate is known. One contract, one file a store."""

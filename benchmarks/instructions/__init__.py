"""How many instructions our side of the benchmarks takes: no other load disturbs that."""

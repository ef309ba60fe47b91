"""Error analysis that a person looks at: the worst queries of a run, what was found for them, and where it matched."""

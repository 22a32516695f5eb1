"""The gate: two sets of records become verdicts that know change from noise."""

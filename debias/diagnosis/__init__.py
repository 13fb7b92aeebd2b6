"""Can this log identify its bias? Each function answers with a verdict."""

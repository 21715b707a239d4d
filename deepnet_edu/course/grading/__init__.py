"""Grade submitted answers: each runs in a sandbox, and where it can be, apart from the judge, which it cannot touch."""

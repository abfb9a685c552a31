"""Networks of other libraries, seen as ours. Their libraries are imported when a network is asked for, and not before."""

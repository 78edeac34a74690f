package sandbox

const layerSeccomp = "seccomp"

// begin restricts files, ports and the reach of signals with landlock.
func begin(p Profile) []Layer { return restrict(p) }

// finish filters system calls, also those of landlock.
func finish(p Profile) []Layer { return []Layer{NewLayer(layerSeccomp, filter(p))} }

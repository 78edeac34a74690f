package sandbox

const layerSeccomp = "seccomp"

// apply puts landlock in force first: seccomp forbids that.
func apply(p Profile) []Layer {
	layers := restrict(p)
	return append(layers, NewLayer(layerSeccomp, filter(p)))
}

package queue

// Lane is the order of mail that is due at the same time: each lane has its own place
// in the store, its own part of the memory and its own turns, so that what is urgent
// never waits for what is not, and what is last still gets through.
type Lane uint8

// The lanes, the best one first.
const (
	LaneUrgent Lane = iota // MT-PRIORITY above 0
	LaneUsual
	LaneLast // MT-PRIORITY below 0, and our own reports
	lanes    // how many there are
)

// The bounds of Message.Priority (RFC 6710 section 3).
const (
	MinPriority = -9
	MaxPriority = 9
)

// Lane returns the lane of a message by its priority.
func (m *Message) Lane() Lane {
	switch {
	case m.Priority > 0:
		return LaneUrgent
	case m.Priority < 0:
		return LaneLast
	}
	return LaneUsual
}

// keepDivisor is the part of the memory that only the lane may fill, or a better one:
// a flood of usual mail leaves room for what is urgent, one of reports for both.
func (l Lane) keepDivisor() int {
	if l == LaneUrgent {
		return 16
	}
	return 4
}

// turns shares turns between lanes: of 16, when all have work, 12 go to the first, 3
// to the second, and one to the last.
type turns uint8

// next returns the lane whose turn it is, of those that have work; false if none has.
func (t *turns) next(has func(Lane) bool) (Lane, bool) {
	*t = (*t + 1) % 16
	first := LaneUrgent
	switch {
	case *t == 0:
		first = LaneLast
	case *t%4 == 0:
		first = LaneUsual
	}
	if has(first) {
		return first, true
	}
	for l := range lanes {
		if has(l) {
			return l, true
		}
	}
	return 0, false
}

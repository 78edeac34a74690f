package mta

// crowd decides who may stand in a lane's line. When it is full, those that come
// wait in the queue, each asking again after a pause: none is taken until the line
// is down to where it resumes, and then so many as are to be released before that
// is looked at again. So a lane with a backlog takes it in gulps, and what is in
// memory meanwhile is for others.
type crowd struct {
	full   bool
	credit int // how many may come although it was full
}

// takes reports whether one more may stand where n are.
func (c *crowd) takes(n int, s laneSize) bool {
	if n >= s.waiting {
		*c = crowd{full: true}
		return false
	}
	if c.full && c.credit == 0 && n <= s.resume {
		*c = crowd{full: s.release > 0, credit: s.release}
	}
	if !c.full {
		return true
	}
	if c.credit == 0 {
		return false
	}
	c.credit--
	return true
}

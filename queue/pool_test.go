package queue

import "testing"

// Within a lane both rings have their turns, also when only one of them has work in
// another lane.
func TestRingsShareEachLane(t *testing.T) {
	t.Parallel()
	some := []*destination{{}}
	p := &pool{probes: 1}
	p.rings[0][LaneUsual], p.rings[0][LaneLast], p.rings[1][LaneLast] = some, some, some
	var got [2]int
	for range 16 * 10 {
		if ring, lane := p.next(); lane == LaneLast {
			got[ring]++
		}
	}
	if got != [2]int{5, 5} {
		t.Errorf("turns of the last lane: %v of destinations that answered, and of others", got)
	}
}

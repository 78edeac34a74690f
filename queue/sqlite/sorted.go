package sqlite

import "tabard/queue"

// sortText is a key of an order in SQL.
func sortText(k queue.SortKey) (text string, isText bool) {
	switch k {
	case queue.SortAge:
		return "-e.created", false
	case queue.SortNext:
		return "e.next", false
	case queue.SortSize:
		return "m.size", false
	case queue.SortAttempts:
		return "e.attempts", false
	case queue.SortSender:
		return "m.sender", true
	case queue.SortDestination:
		return "e.destination", true
	}
	return "e.address", true
}

// sorted adds where a page begins, and returns its order.
func (w *where) sorted(q *queue.Query) (order string) {
	if q.Order.By == "" {
		w.add("(e.message, e.n) > (?, ?)", int64(q.After.Message), q.After.N)
		return "e.message, e.n"
	}
	key, isText := sortText(q.Order.By)
	than, way := ">", ""
	if q.Order.Reverse {
		than, way = "<", " DESC"
	}
	if p := q.AfterPlace; p != nil {
		var value any = p.Number
		if isText {
			value = p.Text
		}
		// What is the same stands in order of id, forward in both.
		w.add("("+key+" "+than+" ? OR "+key+" = ? AND (e.message, e.n) > (?, ?))", value, value, int64(p.ID.Message), p.ID.N)
	}
	return key + way + ", e.message, e.n"
}

package deliver

import "syscall"

// inheritedMax is above every descriptor that a parent hands down.
const inheritedMax = 1024

// closeLow goes through the low descriptors one by one; those that are not open
// say so and that is all.
func closeLow() {
	for fd := 3; fd < inheritedMax; fd++ {
		syscall.CloseOnExec(fd)
	}
}

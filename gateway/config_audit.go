package main

import "time"

// AuditConfig is how often what the platforms did is compared with what is
// known.
type AuditConfig struct {
	Every  time.Duration // 0: never
	Window time.Duration // how far back
}

func (c *AuditConfig) field() field {
	return group("audit", "Every merchant's payment platform is asked for all that it did lately: money that came after its answer was lost for good, "+
		"and operations that somebody made at the platform, are learnt so.",
		duration(&c.Every, 0, day, "every", "1h", "How often. 0s never: then only notifications tell of what is done at the platform."),
		duration(&c.Window, minute, 30*day, "window", "48h", "How far back each time. More than the longest outage, and than the platform's search takes to show a transaction."),
	)
}

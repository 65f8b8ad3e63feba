// Package seal owns the keys under which sensitive objects are stored: a ring of them, of which the newest active one encrypts
// and all others still decrypt. It encrypts with AES-256-GCM, and knows neither files nor the network: its caller keeps the
// ring and passes it on.
package seal

package uboot

import (
	"errors"
	"strconv"
)

// Provision writes a first environment with a default slot, into all copies: what an image is made with. Other variables, such as
// the boot commands, may be given with it.
func Provision(places []Place, slot string, more map[string]string) error {
	vars := map[string]string{varSlot: slot, varAvailable: "0", varCount: "0", varLimit: "3"}
	for name, value := range more {
		vars[name] = value
	}
	var failures []error
	for i, p := range places {
		data, err := format(vars, byte(i), p.Size, len(places) > 1)
		if err == nil {
			err = writeWhole(p, data)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// PlayBoot does what U-Boot does at power on, on the real environment: it counts the boot if an update is being tried (bootcount_inc),
// and returns the slot that bootcmd or altbootcmd would start. Tests and simulated fleets boot by it.
func PlayBoot(places []Place) (slot string, err error) {
	env := environment{places: places}
	vars, _, _, err := env.read()
	if err != nil {
		return "", err
	}
	if vars[varAvailable] != "1" {
		return vars[varSlot], nil
	}
	count := number(vars[varCount]) + 1
	if err := env.write(map[string]string{varCount: strconv.Itoa(count)}); err != nil {
		return "", err
	}
	if count > number(vars[varLimit]) {
		return vars[varSlot], nil
	}
	return vars[varTry], nil
}

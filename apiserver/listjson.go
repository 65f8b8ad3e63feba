package apiserver

import (
	"bytes"
	"encoding/json"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// itemWriter writes the items of one list as JSON.
//
// A third of the time that a list took went into managed fields: encoding/json looks at what a Marshaler returns byte by byte, and of an
// object that several wrote fieldsV1 is half. They are written here without it when they are as this server itself makes them.
type itemWriter struct {
	w      io.Writer
	buffer bytes.Buffer
	enc    *json.Encoder // into buffer
}

func newItemWriter(w io.Writer) *itemWriter {
	i := &itemWriter{w: w}
	i.enc = json.NewEncoder(&i.buffer)
	return i
}

// row writes an object as a row of a Table, with as much of the object itself as there shall be.
func (i *itemWriter) row(cells []any, include any) error {
	i.buffer.Reset()
	i.buffer.WriteString(`{"cells":`)
	if err := i.enc.Encode(cells); err != nil {
		return err
	}
	i.buffer.Truncate(i.buffer.Len() - 1)
	if include == nil {
		include = json.RawMessage("null") // as metav1.TableRow is written
	}
	i.buffer.WriteString(`,"object":`)
	if err := i.flush(0); err != nil {
		return err
	}
	if err := i.write(include); err != nil {
		return err
	}
	_, err := io.WriteString(i.w, "}")
	return err
}

// write takes the managed fields out of an object: it is the caller's last use of it.
func (i *itemWriter) write(item any) error {
	i.buffer.Reset()
	if meta := embeddedMeta(item); meta != nil && len(meta.ManagedFields) > 0 {
		if done, err := i.writeManaged(item, meta); done || err != nil {
			return err
		}
	}
	if err := i.enc.Encode(item); err != nil {
		return err
	}
	return i.flush(1)
}

// noMeta is the metadata of an object that has none.
const noMeta = `"metadata":{}`

// writeManaged writes the metadata by itself, and the rest of the object around it. It is not done with objects whose JSON does not begin with
// their metadata, or with their kind and version before it.
func (i *itemWriter) writeManaged(item any, meta *metav1.ObjectMeta) (done bool, err error) {
	whole := *meta
	*meta = metav1.ObjectMeta{}
	err = i.enc.Encode(item)
	*meta = whole
	if err != nil {
		return false, err
	}
	at := bytes.Index(i.buffer.Bytes(), []byte(noMeta))
	if at < 0 || bytes.Count(i.buffer.Bytes()[:at], []byte("{")) != 1 {
		i.buffer.Reset()
		return false, nil
	}
	rest := i.buffer.Len()
	whole.ManagedFields = nil
	if err := i.enc.Encode(whole); err != nil {
		return false, err
	}
	i.reopen()
	i.buffer.WriteString(`,"managedFields":[`)
	for n, entry := range meta.ManagedFields {
		if n > 0 {
			i.buffer.WriteByte(',')
		}
		if err := i.entry(entry); err != nil {
			return false, err
		}
	}
	i.buffer.WriteString("]}")
	text := i.buffer.Bytes()
	from := at + len(noMeta)
	for _, part := range [][]byte{text[:from-len("{}")], text[rest:], text[from : rest-1]} {
		if _, err := i.w.Write(part); err != nil {
			return false, err
		}
	}
	return true, nil
}

// entry writes what encoding/json would, in another order.
func (i *itemWriter) entry(e metav1.ManagedFieldsEntry) error {
	text := i.buffer.AvailableBuffer()
	sep := byte('{')
	field := func(name, value string) {
		if value != "" {
			text = appendString(append(append(append(text, sep, '"'), name...), `":`...), value)
			sep = ','
		}
	}
	field("manager", e.Manager)
	field("operation", string(e.Operation))
	field("apiVersion", e.APIVersion)
	if e.Time != nil && !e.Time.IsZero() {
		field("time", e.Time.UTC().Format(time.RFC3339))
	}
	field("fieldsType", e.FieldsType)
	field("subresource", e.Subresource)
	if e.FieldsV1 != nil {
		text = append(append(text, sep), `"fieldsV1":`...)
		sep = ','
		raw := e.FieldsV1.Raw
		if !plainFields(raw) {
			var err error
			if raw, err = json.Marshal(e.FieldsV1); err != nil {
				return err
			}
		}
		text = append(text, raw...)
	}
	if sep == '{' {
		text = append(text, sep)
	}
	i.buffer.Write(append(text, '}'))
	return nil
}

// appendString appends a string as JSON.
func appendString(text []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // a string has a JSON form
				return append(text, `""`...)
			}
			return append(text, quoted...)
		}
	}
	return append(append(append(text, '"'), s...), '"')
}

// plainFields reports whether the bytes are JSON of nothing but objects in objects, without blanks and with the simplest escapes only, as
// fieldsV1 is. Whatever else they are, encoding/json has to look at them.
func plainFields(raw []byte) bool {
	depth := 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '{':
			depth++
			if i+1 < len(raw) && raw[i+1] == '}' {
				continue
			}
		case '}':
			if depth--; depth == 0 {
				return i == len(raw)-1
			}
			if i+1 >= len(raw) || raw[i+1] == '}' {
				continue
			}
			if i++; raw[i] != ',' {
				return false
			}
		default:
			return false
		}
		// A key and its colon follow, and then an object.
		if i++; i >= len(raw) || raw[i] != '"' {
			return false
		}
		for i++; i < len(raw) && raw[i] != '"'; i++ {
			if raw[i] < ' ' {
				return false
			}
			if raw[i] == '\\' {
				if i++; i >= len(raw) || raw[i] != '"' && raw[i] != '\\' {
					return false
				}
			}
		}
		if i += 2; i >= len(raw) || raw[i-1] != ':' || raw[i] != '{' {
			return false
		}
		i-- // the object is looked at next
	}
	return false
}

// reopen takes the closing brace and the end of the line away, which the encoder has just written.
func (i *itemWriter) reopen() { i.buffer.Truncate(i.buffer.Len() - len("}\n")) }

// flush writes what is in the buffer, but for so many bytes at its end.
func (i *itemWriter) flush(but int) error {
	_, err := i.w.Write(i.buffer.Bytes()[:i.buffer.Len()-but])
	return err
}

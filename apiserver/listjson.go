package apiserver

import (
	"bytes"
	"encoding/json"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// itemWriter writes the items of one list as JSON.
//
// A quarter of the time that a list took went into fieldsV1: encoding/json checks and copies, byte by byte, what a Marshaler returns.
// The objects that one manager wrote alike have the same fieldsV1, so each of them is looked at once for a list.
type itemWriter struct {
	w      io.Writer
	buffer bytes.Buffer
	enc    *json.Encoder // into buffer
	fields map[string][]byte
}

func newItemWriter(w io.Writer) *itemWriter {
	i := &itemWriter{w: w, fields: map[string][]byte{}}
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
	if obj, ok := item.(interface{ GetObjectMeta() metav1.Object }); ok {
		meta, ok := obj.GetObjectMeta().(*metav1.ObjectMeta)
		if ok && len(meta.ManagedFields) > 0 {
			if done, err := i.writeManaged(item, meta); done || err != nil {
				return err
			}
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

func (i *itemWriter) entry(entry metav1.ManagedFieldsEntry) error {
	fields := entry.FieldsV1
	entry.FieldsV1 = nil
	if err := i.enc.Encode(entry); err != nil || fields == nil {
		i.buffer.Truncate(i.buffer.Len() - 1) // the end of the line
		return err
	}
	compact, ok := i.fields[string(fields.Raw)]
	if !ok {
		var err error
		if compact, err = json.Marshal(fields); err != nil {
			return err
		}
		i.fields[string(fields.Raw)] = compact
	}
	i.reopen()
	i.buffer.WriteString(`,"fieldsV1":`)
	i.buffer.Write(compact)
	i.buffer.WriteByte('}')
	return nil
}

// reopen takes the closing brace and the end of the line away, which the encoder has just written.
func (i *itemWriter) reopen() { i.buffer.Truncate(i.buffer.Len() - len("}\n")) }

// flush writes what is in the buffer, but for so many bytes at its end.
func (i *itemWriter) flush(but int) error {
	_, err := i.w.Write(i.buffer.Bytes()[:i.buffer.Len()-but])
	return err
}

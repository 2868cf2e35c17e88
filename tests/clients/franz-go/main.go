// The driver of franz-go: create|produce|consume BOOTSTRAP FILE. The README beside this directory describes the lines
// of FILE and of the answers.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const patience = 60 * time.Second

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

type newTopic struct {
	Topic       string `json:"topic"`
	Partitions  int32  `json:"partitions"`
	Replication int16  `json:"replication"`
}

type produceCase struct {
	Topic      string `json:"topic"`
	Partition  int32  `json:"partition"`
	Codec      string `json:"codec"`
	Idempotent bool   `json:"idempotent"`
	Records    string `json:"records"`
}

// Bytes in JSON are base64 or null, which is how encoding/json takes a slice of them; null and empty stay apart.
type workRecord struct {
	Timestamp *int64              `json:"timestamp"`
	Key       []byte              `json:"key"`
	Value     []byte              `json:"value"`
	Headers   [][]json.RawMessage `json:"headers"`
}

type read struct {
	Read      int             `json:"read"`
	Topic     string          `json:"topic"`
	Partition int32           `json:"partition"`
	From      json.RawMessage `json:"from"`
	Until     int64           `json:"until"`
}

type place struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

type seen struct {
	Offset    int64        `json:"offset"`
	Timestamp int64        `json:"timestamp"`
	Key       *string      `json:"key"`
	Value     *string      `json:"value"`
	Headers   [][2]*string `json:"headers"`
}

type driver struct {
	bootstrap []string
	out       *bufio.Writer
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: %s create|produce|consume BOOTSTRAP FILE", os.Args[0]))
	}
	d := driver{bootstrap: strings.Split(os.Args[2], ","), out: bufio.NewWriter(os.Stdout)}
	var err error
	switch os.Args[1] {
	case "create":
		err = each(os.Args[3], d.create)
	case "produce":
		err = each(os.Args[3], d.produce)
	case "consume":
		err = each(os.Args[3], d.consume)
	default:
		err = fmt.Errorf("no command %s", os.Args[1])
	}
	if err == nil {
		err = d.out.Flush()
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// each does the work of every line of a file.
func each[T any](path string, do func(T) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := json.NewDecoder(bufio.NewReader(file))
	for lines.More() {
		var work T
		if err := lines.Decode(&work); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := do(work); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) tell(fact any) error {
	line, err := json.Marshal(fact)
	if err != nil {
		return err
	}
	_, err = d.out.Write(append(line, '\n'))
	return err
}

func (d *driver) client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options, kgo.SeedBrokers(d.bootstrap...))...)
}

func (d *driver) create(topic newTopic) error {
	client, err := d.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := kadm.NewClient(client).CreateTopic(ctx, topic.Partitions, topic.Replication, nil, topic.Topic)
	if err != nil {
		return err
	}
	return answer.Err
}

func (d *driver) produce(one produceCase) error {
	options := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[one.Codec]),
		kgo.ProducerLinger(200 * time.Millisecond),
		kgo.RequiredAcks(kgo.AllISRAcks()),
	}
	if !one.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	client, err := d.client(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	var records []*kgo.Record
	err = each(one.Records, func(work workRecord) error {
		record, err := work.record(one)
		records = append(records, record)
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	for _, record := range records {
		if err := d.tell(place{one.Topic, one.Partition, record.Offset}); err != nil {
			return err
		}
	}
	return nil
}

func (work workRecord) record(one produceCase) (*kgo.Record, error) {
	record := &kgo.Record{Topic: one.Topic, Partition: one.Partition, Key: work.Key, Value: work.Value}
	if work.Timestamp != nil {
		record.Timestamp = time.UnixMilli(*work.Timestamp)
	}
	for _, pair := range work.Headers {
		var header kgo.RecordHeader
		if len(pair) != 2 {
			return nil, fmt.Errorf("a header of %d parts", len(pair))
		}
		if err := json.Unmarshal(pair[0], &header.Key); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(pair[1], &header.Value); err != nil {
			return nil, err
		}
		record.Headers = append(record.Headers, header)
	}
	return record, nil
}

// firstFetch tells when the client sends its first fetch, which is when it knows where a partition ends.
type firstFetch struct {
	once sync.Once
	sent chan struct{}
}

const fetchKey = 1

// OnBrokerWrite is called by the client after each request that it has written.
func (f *firstFetch) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == fetchKey && err == nil {
		f.once.Do(func() { close(f.sent) })
	}
}

var _ kgo.HookBrokerWrite = (*firstFetch)(nil)

func startOf(from json.RawMessage) (kgo.Offset, bool, error) {
	var word string
	if json.Unmarshal(from, &word) == nil {
		switch word {
		case "beginning":
			return kgo.NewOffset().AtStart(), false, nil
		case "end":
			return kgo.NewOffset().AtEnd(), true, nil
		}
	}
	var at struct {
		Offset    *int64 `json:"offset"`
		Timestamp *int64 `json:"timestamp"`
	}
	if err := json.Unmarshal(from, &at); err != nil {
		return kgo.Offset{}, false, err
	}
	switch {
	case at.Offset != nil:
		return kgo.NewOffset().At(*at.Offset), false, nil
	case at.Timestamp != nil:
		return kgo.NewOffset().AfterMilli(*at.Timestamp), false, nil
	}
	return kgo.Offset{}, false, fmt.Errorf("from where? %s", from)
}

func (d *driver) consume(work read) error {
	start, atEnd, err := startOf(work.From)
	if err != nil {
		return err
	}
	first := &firstFetch{sent: make(chan struct{})}
	client, err := d.client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{work.Topic: {work.Partition: start}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.WithHooks(first),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.tell(map[string]any{"read": work.Read, "ready": false}); err != nil {
		return err
	}
	if atEnd {
		select {
		case <-first.sent:
		case <-ctx.Done():
			return fmt.Errorf("%s-%d: its end was not found", work.Topic, work.Partition)
		}
		if err := d.tell(map[string]any{"read": work.Read, "ready": true}); err != nil {
			return err
		}
		if err := d.out.Flush(); err != nil {
			return err
		}
	}
	return d.readTo(ctx, client, work.Until)
}

func (d *driver) readTo(ctx context.Context, client *kgo.Client, until int64) error {
	for next := int64(0); next < until; {
		fetched := client.PollFetches(ctx)
		for _, failed := range fetched.Errors() {
			return fmt.Errorf("%s-%d: %w", failed.Topic, failed.Partition, failed.Err)
		}
		for _, record := range fetched.Records() {
			if next = record.Offset + 1; next > until {
				break
			}
			if err := d.tell(seenOf(record)); err != nil {
				return err
			}
		}
	}
	return nil
}

func seenOf(record *kgo.Record) seen {
	headers := [][2]*string{}
	for _, header := range record.Headers {
		headers = append(headers, [2]*string{&header.Key, hashed(header.Value)})
	}
	return seen{record.Offset, record.Timestamp.UnixMilli(), hashed(record.Key), hashed(record.Value), headers}
}

func hashed(data []byte) *string {
	if data == nil {
		return nil
	}
	sum := sha256.Sum256(data)
	text := hex.EncodeToString(sum[:])
	return &text
}

// The echo contract for fabric-chaincode-go; see echo_chaincode.py.
// Usage: echo CHAINCODE_ID ADDRESS KEY_FILE CERTIFICATE_FILE CLIENT_ROOTS_FILE
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/ledger/queryresult"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

type stub = shim.ChaincodeStubInterface
type list = []any

func text(value []byte, err error) (any, error) {
	if err != nil || len(value) == 0 {
		return nil, err
	}
	return string(value), nil
}

func hexed(value []byte, err error) (any, error) {
	if err != nil || len(value) == 0 {
		return nil, err
	}
	return hex.EncodeToString(value), nil
}

func take(found shim.StateQueryIteratorInterface, err error, limit int) (any, error) {
	if err != nil {
		return nil, err
	}
	defer found.Close()
	taken := list{}
	for len(taken) < limit && found.HasNext() {
		item, err := found.Next()
		if err != nil {
			return nil, err
		}
		taken = append(taken, list{item.Key, string(item.Value)})
	}
	return taken, nil
}

func page(found shim.StateQueryIteratorInterface, metadata *peer.QueryResponseMetadata, err error) (any, error) {
	items, err := take(found, err, 1000000)
	if err != nil {
		return nil, err
	}
	return list{items, metadata.FetchedRecordsCount, metadata.Bookmark}, nil
}

func history(found shim.HistoryQueryIteratorInterface, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	defer found.Close()
	taken := list{}
	for found.HasNext() {
		var item *queryresult.KeyModification
		if item, err = found.Next(); err != nil {
			return nil, err
		}
		taken = append(taken, list{item.TxId, string(item.Value), item.IsDelete})
	}
	return taken, nil
}

func texts(value any) []string {
	found := []string{}
	for _, item := range value.([]any) {
		found = append(found, item.(string))
	}
	return found
}

func raw(value any) []byte {
	decoded, err := hex.DecodeString(value.(string))
	if err != nil {
		panic(err)
	}
	return decoded
}

func step(s stub, name string, a list) (any, error) {
	t := func(at int) string { return a[at].(string) }
	n := func(at int) int { return int(a[at].(float64)) }
	switch name {
	case "get":
		return text(s.GetState(t(0)))
	case "many":
		values, err := s.GetMultipleStates(texts(a)...)
		found := list{}
		for _, value := range values {
			item, _ := text(value, nil)
			found = append(found, item)
		}
		return found, err
	case "put":
		return nil, s.PutState(t(0), []byte(t(1)))
	case "delete":
		return nil, s.DelState(t(0))
	case "range":
		limit := 1000000
		if len(a) > 2 {
			limit = n(2)
		}
		found, err := s.GetStateByRange(t(0), t(1))
		return take(found, err, limit)
	case "partial":
		found, err := s.GetStateByPartialCompositeKey(t(0), texts(a[1]))
		return take(found, err, 1000000)
	case "range_page":
		return page(s.GetStateByRangeWithPagination(t(0), t(1), int32(n(2)), t(3)))
	case "partial_page":
		return page(s.GetStateByPartialCompositeKeyWithPagination(t(0), texts(a[1]), int32(n(2)), t(3)))
	case "query":
		found, err := s.GetQueryResult(t(0))
		return take(found, err, 1000000)
	case "history":
		return history(s.GetHistoryForKey(t(0)))
	case "composite":
		return s.CreateCompositeKey(t(0), texts(a[1]))
	case "split":
		objectType, attributes, err := s.SplitCompositeKey(t(0))
		return list{objectType, attributes}, err
	case "pget":
		return text(s.GetPrivateData(t(0), t(1)))
	case "pput":
		return nil, s.PutPrivateData(t(0), t(1), []byte(t(2)))
	case "pdelete":
		return nil, s.DelPrivateData(t(0), t(1))
	case "ppurge":
		return nil, s.PurgePrivateData(t(0), t(1))
	case "phash":
		return hexed(s.GetPrivateDataHash(t(0), t(1)))
	case "prange":
		found, err := s.GetPrivateDataByRange(t(0), t(1), t(2))
		return take(found, err, 1000000)
	case "ppartial":
		found, err := s.GetPrivateDataByPartialCompositeKey(t(0), t(1), texts(a[2]))
		return take(found, err, 1000000)
	case "pquery":
		found, err := s.GetPrivateDataQueryResult(t(0), t(1))
		return take(found, err, 1000000)
	case "set_policy":
		return nil, s.SetStateValidationParameter(t(0), raw(a[1]))
	case "get_policy":
		return hexed(s.GetStateValidationParameter(t(0)))
	case "set_ppolicy":
		return nil, s.SetPrivateDataValidationParameter(t(0), t(1), raw(a[2]))
	case "get_ppolicy":
		return hexed(s.GetPrivateDataValidationParameter(t(0), t(1)))
	case "event":
		return nil, s.SetEvent(t(0), []byte(t(1)))
	case "invoke":
		args := [][]byte{}
		for _, arg := range texts(a[1]) {
			args = append(args, []byte(arg))
		}
		answer := s.InvokeChaincode(t(0), args, t(2))
		return list{answer.Status, string(answer.Payload)}, nil
	case "transient":
		values, err := s.GetTransient()
		found := map[string]string{}
		for name, value := range values {
			found[name] = string(value)
		}
		return found, err
	case "args":
		return s.GetStringArgs(), nil
	case "channel":
		return s.GetChannelID(), nil
	case "txid":
		return s.GetTxID(), nil
	case "creator":
		creator, err := s.GetCreator()
		if err != nil {
			return nil, err
		}
		identity := &msp.SerializedIdentity{}
		if err := proto.Unmarshal(creator, identity); err != nil {
			return nil, err
		}
		digest := sha256.Sum256(identity.IdBytes)
		return list{identity.Mspid, hex.EncodeToString(digest[:])}, nil
	case "timestamp":
		moment, err := s.GetTxTimestamp()
		if err != nil {
			return nil, err
		}
		return moment.AsTime().UnixMilli(), nil
	case "binding":
		return hexed(s.GetBinding())
	case "proposal":
		signed, err := s.GetSignedProposal()
		if err != nil {
			return nil, err
		}
		digest := sha256.Sum256(signed.ProposalBytes)
		return hex.EncodeToString(digest[:]), nil
	}
	return nil, fmt.Errorf("no step %s", name)
}

func run(s stub, script string) ([]byte, error) {
	var steps []list
	if err := json.Unmarshal([]byte(script), &steps); err != nil {
		return nil, err
	}
	results := list{}
	for _, parts := range steps {
		result, err := step(s, parts[0].(string), parts[1:])
		if err != nil {
			result = map[string]string{"error": err.Error()}
		}
		results = append(results, result)
	}
	return json.Marshal(results)
}

func key(prefix string, number int) string { return fmt.Sprintf("%s%06d", prefix, number) }

func call(s stub) ([]byte, error) {
	function, a := s.GetFunctionAndParameters()
	switch function {
	case "run":
		return run(s, a[0])
	case "fail":
		_ = s.PutState("failed", []byte("1"))
		_ = s.SetEvent("Failed", []byte("1"))
		return nil, fmt.Errorf("as told")
	case "empty":
		return nil, nil
	case "add":
		value, err := s.GetState(a[0])
		if err != nil {
			return nil, err
		}
		number, _ := strconv.Atoi(string(value))
		next := []byte(strconv.Itoa(number + 1))
		return next, s.PutState(a[0], next)
	case "write", "write_batch":
		count, _ := strconv.Atoi(a[1])
		if function == "write_batch" {
			s.StartWriteBatch()
		}
		for number := 0; number < count; number++ {
			if err := s.PutState(key(a[0], number), []byte(fmt.Sprintf("value %06d", number))); err != nil {
				return nil, err
			}
		}
		if function == "write_batch" {
			return nil, s.FinishWriteBatch()
		}
		return nil, nil
	case "read":
		count, _ := strconv.Atoi(a[1])
		keys := []string{}
		for number := 0; number < count; number++ {
			keys = append(keys, key(a[0], number))
		}
		values, err := s.GetMultipleStates(keys...)
		found := 0
		for _, value := range values {
			if value != nil {
				found++
			}
		}
		return []byte(strconv.Itoa(found)), err
	}
	return nil, fmt.Errorf("no function %s", function)
}

type echo struct{}

func (echo) Init(stub) *peer.Response { return shim.Success(nil) }

func (echo) Invoke(s stub) *peer.Response {
	payload, err := call(s)
	if err != nil {
		return shim.Error(err.Error())
	}
	return shim.Success(payload)
}

func file(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return content
}

func main() {
	a := os.Args
	server := &shim.ChaincodeServer{
		CCID: a[1], Address: a[2], CC: echo{},
		TLSProps: shim.TLSProperties{Key: file(a[3]), Cert: file(a[4]), ClientCACerts: file(a[5])},
	}
	if err := server.Start(); err != nil {
		panic(err)
	}
}

package mib_test

import (
	"fmt"

	"example.com/iad/mib"
)

// A manager names instances, and reads answers, by the module.
func ExampleModule() {
	m := mib.NewModule(nil)
	name := m.OID(mib.BankState, 2)
	fmt.Println(name)

	o, index, _ := m.Lookup(name)
	fmt.Println(o.Name, index, o.Label(4))
	fmt.Println(mib.BankStateTrial, mib.BankStateTrial.Value().Int)
	// Output:
	// 1.3.6.1.4.1.8072.9999.9999.17325.1.2.1.1.2.2
	// iadUpgBankState 2 ready
	// trial 5
}

// A front end carries out a SET and reports to the device that the response left.
func ExampleTree_Set() {
	m := mib.NewModule(nil)
	tree := mib.NewTree(m, newDevice(0))
	_, err := tree.Set(mib.Caller{}, []mib.Varbind{
		{OID: m.OID(mib.ServerTimeout, 1), Value: mib.Uint32(60)},
		{OID: m.OID(mib.ServerTimeout, 2), Value: mib.Uint32(601)},
	})
	fmt.Println(err)

	tx, err := tree.Set(mib.Caller{}, []mib.Varbind{
		{OID: m.OID(mib.ServerTimeout, 1), Value: mib.Uint32(60)},
	})
	if err == nil {
		// Send the response here.
		tx.Done()
	}
	fmt.Println(tree.Get([]mib.OID{m.OID(mib.ServerTimeout, 1)})[0].Value)
	// Output:
	// SET refused: wrongValue, error-index 2: iadUpgServerTimeout: 601 is out of range
	// 60
}

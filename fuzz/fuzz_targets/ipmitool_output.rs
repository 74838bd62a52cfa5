//! What ipmitool writes: success only for the very words, "nothing was told" only without a session, and
//! no more than one short line passed on.
#![no_main]

use fence_core::execution::{Order, OrderReport};
use fence_device::ipmitool_output::{What, order_report, power_report, said};
use fence_protocol::PowerState;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|output: (u8, &str)| {
    let (code, text) = output;
    let (stdout, stderr) = text.split_once('\0').unwrap_or((text, ""));
    let said = said(i32::from(code), stdout, stderr);
    assert!(said.words.lines().count() == 1, "{said:?}");
    assert!(said.words.len() <= text.len() + 256, "{said:?}");

    let is_all_of_it = |words: &str| code == 0 && stdout.trim() == words;
    for (order, words) in [
        (Order::Off, "Chassis Power Control: Down/Off"),
        (Order::On, "Chassis Power Control: Up/On"),
        (Order::Cycle, "Chassis Power Control: Cycle"),
    ] {
        match order_report(order, said.clone()) {
            OrderReport::Acknowledged(_) => assert!(is_all_of_it(words), "{output:?}"),
            // The controller itself says that it did not take the order, or had no session for it.
            OrderReport::Unreachable(_) if matches!(said.what, What::Busy) => {
                assert!(!is_all_of_it(words), "{output:?}");
            }
            OrderReport::Unreachable(_) | OrderReport::Failed(_) => {
                assert!(matches!(said.what, What::Unreachable | What::NotLetIn), "{said:?}");
                assert!(stderr.contains("Error: Unable to establish IPMI v2"), "{output:?}");
                assert!(!stderr.contains("Chassis Power Control"), "{output:?}");
            }
            OrderReport::Unacknowledged(_) => {}
            OrderReport::TooLate | OrderReport::Withdrawn => panic!("{said:?}"),
        }
    }
    match power_report(said).state {
        PowerState::On => assert!(is_all_of_it("Chassis Power is on"), "{output:?}"),
        PowerState::Off => assert!(is_all_of_it("Chassis Power is off"), "{output:?}"),
        PowerState::Unknown => {}
    }
});

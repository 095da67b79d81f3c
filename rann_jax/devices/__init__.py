"""How arrays and programs meet devices: sharding, compilation, traffic between devices."""
